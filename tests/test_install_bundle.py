"""A bundle's installer: what it takes over, keeps and refuses. Docker is a stand-in; test_bundle.py has a real one."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import PROJECT

from env.loading import load_settings
from runtime.errors import KitError
from runtime.ops import signing

IMAGE = "qwen3-asr-ascend:{}-cpu"
# Instead of the real one, which needs the wheels of some thirty packages.
INSTALL = "import pathlib, sys; pathlib.Path(sys.prefix, 'installed').write_text(' '.join(sys.argv[1:]))\n"


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, str]:
    """An environment whose docker notes what it is asked, and whose Python makes environments without pip."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "docker": f'echo "$*" >> {tmp_path}/docker.log',
        "quick-python": f'[ "$1 $2" != "-m venv" ] || set -- "$@" --without-pip\nexec {sys.executable} "$@"',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": "quick-python"}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The key of who makes bundles."""
    return make_key(tmp_path / "key")


@pytest.fixture
def signers(tmp_path: Path, key: Path) -> Path:
    """Whom who installs trusts."""
    path = tmp_path / "signers"
    path.write_text(f"release@example.com {key.with_suffix('.pub').read_text()}")
    return path


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def make_bundle(folder: Path, version: str, *modules: str, weights: str = "") -> Path:
    """A bundle of a kit with so many modules, as `invoke bundle` lays it out."""
    kit = folder.parent / f"kit-{version}"
    texts = {
        "pyproject.toml": f'version = "{version}"\n',
        "env/install.py": INSTALL,
        "docker/certificates/README.md": "",
    }
    for name, text in {**texts, **{f"runtime/{module}.py": version for module in modules}}.items():
        (kit / name).parent.mkdir(parents=True, exist_ok=True)
        (kit / name).write_text(text)
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels/one.whl").write_text("a wheel")
    with tarfile.open(folder / "kit.tar", "w") as archive:
        for path in sorted(kit.rglob("*")):
            if path.is_file():
                archive.add(path, arcname=str(path.relative_to(kit)))
    (folder / "image.tar").write_text("an image")
    (folder / "settings.env").write_text(f"# What was set\nASR_PROFILE=cpu\nASR_IMAGE={IMAGE.format(version)}\n")
    if weights:
        (folder / "weights/own").mkdir(parents=True)
        (folder / "weights/own/model.safetensors").write_text(weights)
        (folder / "weights/weights.lock").write_text(weights)
    shutil.copy(PROJECT / "docker/install.sh", folder)
    write_sums(folder)
    return folder


def write_sums(folder: Path) -> None:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("SHA256SUMS")]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in paths]
    (folder / "SHA256SUMS").write_text("".join(lines))


def install(bundle: Path, environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(bundle / "install.sh"), *words]
    return subprocess.run(
        command, cwd=bundle.parent, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_an_installed_kit_is_upgraded_in_place(tmp_path: Path, commands: dict[str, str]) -> None:
    target = tmp_path / "kit"
    first = install(make_bundle(tmp_path / "first", "1.0", "kept", "dropped", weights="old"), commands, str(target))
    assert first.returncode == 0, first.stderr
    assert first.stdout.endswith(f"Installed 1.0. Next: cd {target} && make up\n")
    assert (target / ".env").read_text().splitlines()[-1] == f"ASR_IMAGE={IMAGE.format('1.0')}"

    # What an operator has by then.
    (target / ".env").write_text("ASR_PORT=8001\n export ASR_IMAGE = 'x:1'\n# mine\nASR_API_KEY=12345678")
    (target / ".env").chmod(0o600)
    for path in ("out/logs/server.log", "docker/certificates/house.crt", "runtime/own.py"):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text("mine")
    before = (target / ".venv/pyvenv.cfg").stat().st_mtime_ns

    bundle = make_bundle(tmp_path / "second", "2.0", "kept", "added", weights="new")
    (bundle / "weights/more").mkdir()
    (bundle / "weights/more/model.safetensors").write_text("more")
    write_sums(bundle)
    second = install(bundle, commands, str(target))
    assert second.returncode == 0, second.stderr
    assert second.stdout.endswith(f"Upgraded from 1.0 to 2.0. Next: cd {target} && make up\n")
    image = f"ASR_IMAGE={IMAGE.format('2.0')}"
    assert f"Kept: .env, but for {image}\n" in second.stdout
    assert "Not taken over from the bundle's settings.env: ASR_PROFILE=cpu\n" in second.stdout
    assert (target / ".env").read_text() == f"{image}\nASR_PORT=8001\n# mine\nASR_API_KEY=12345678"
    assert (target / ".env").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (target / "runtime").iterdir()} == {"kept.py", "added.py", "own.py"}
    assert (target / "runtime/kept.py").read_text() == "2.0"
    for path in ("out/logs/server.log", "docker/certificates/house.crt"):
        assert (target / path).read_text() == "mine"
    weights = {path.name: path.read_text() for path in (target / "weights").rglob("*") if path.is_file()}
    assert (target / "weights/own/model.safetensors").read_text() == "old"
    assert (target / "weights/more/model.safetensors").read_text() == "more"
    assert weights["weights.lock"] == "old"
    assert (target / ".venv/pyvenv.cfg").stat().st_mtime_ns == before
    assert (target / ".venv/installed").read_text() == "host"
    assert f"load --input {bundle}/image.tar" in (tmp_path / "docker.log").read_text()

    back = install(tmp_path / "first", commands, str(target))
    assert "Upgraded from 2.0 to 1.0" in back.stdout
    assert {path.name for path in (target / "runtime").iterdir()} == {"kept.py", "dropped.py", "own.py"}


def test_a_python_that_has_gone_is_replaced(tmp_path: Path, commands: dict[str, str]) -> None:
    bundle, target = make_bundle(tmp_path / "bundle", "1.0"), tmp_path / "kit"
    (target / ".venv/bin").mkdir(parents=True)
    (target / ".venv/bin/python").symlink_to("/usr/bin/python3.9-that-was")
    result = install(bundle, commands, str(target))
    assert result.returncode == 0, result.stderr
    assert (target / ".venv/installed").is_file()


def test_what_is_refused_touches_nothing(tmp_path: Path, commands: dict[str, str], signers: Path) -> None:
    bundle, target = make_bundle(tmp_path / "bundle", "1.0"), tmp_path / "kit"
    (tmp_path / "clone/.git").mkdir(parents=True)
    refusals = {
        ("clone",): "is a clone of the kit → git pull there",
        ("--signers", str(signers), "kit"): "the bundle is not signed → have it made with ASR_BUNDLE_KEY",
        ("--signers", "nowhere", "kit"): "nowhere cannot be read",
        ("--signers",): "--signers names no file",
        ("--help",): "--help is no option → ./install.sh [--signers FILE] [DIRECTORY]",
        ("kit", "other"): "other: only one directory",
    }
    for words, reason in refusals.items():
        result = install(bundle, commands, *words)
        assert (result.returncode, reason in result.stderr) == (1, True), result.stderr
    (bundle / "wheels/more.whl").write_text("from somebody else")
    result = install(bundle, commands, str(target))
    assert (result.returncode, "not in SHA256SUMS: wheels/more.whl" in result.stderr) == (1, True), result.stderr
    assert not target.exists()
    assert "load" not in (tmp_path / "docker.log").read_text()


def test_a_signature_is_verified_where_keys_are_named(
    tmp_path: Path, commands: dict[str, str], key: Path, signers: Path
) -> None:
    bundle, target = make_bundle(tmp_path / "bundle", "1.0"), str(tmp_path / "kit")
    assert (
        "Not signed: the checksums show damage, not who made the bundle\n" in install(bundle, commands, target).stdout
    )
    signing.check(key)
    signing.sign(key, bundle / "SHA256SUMS")
    assert "Signed, but by whom was not verified" in install(bundle, commands, target).stdout
    trusting = install(bundle, commands, "--signers", str(signers), target)
    assert trusting.returncode == 0, trusting.stderr
    assert "Signed by release@example.com\n" in trusting.stdout

    (bundle / "settings.env").write_text("ASR_IMAGE=evil:1\n")
    write_sums(bundle)
    changed = install(bundle, commands, "--signers", str(signers), target)
    assert (changed.returncode, "SHA256SUMS is not what release@example.com signed" in changed.stderr) == (1, True)

    other = make_key(tmp_path / "other")
    (bundle / "SHA256SUMS.sig").unlink()
    signing.sign(other, bundle / "SHA256SUMS")
    strange = install(bundle, commands, "--signers", str(signers), target)
    assert (strange.returncode, f"signed by no key of {signers}" in strange.stderr) == (1, True)
    assert "evil" not in (tmp_path / "kit/.env").read_text()


def test_a_key_that_cannot_sign_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"ASR_BUNDLE_KEY: .* is no file"):
        signing.check(tmp_path / "none")
    (tmp_path / "text").write_text("not a key")
    with pytest.raises(KitError, match=r"is not a .*key file"):
        signing.check(tmp_path / "text")
    (tmp_path / "sums").write_text("sums")
    public = make_key(tmp_path / "gone").with_suffix(".pub")
    (tmp_path / "gone").unlink()
    with pytest.raises(KitError, match="does not sign"):
        signing.sign(public, tmp_path / "sums")
    assert load_settings({"ASR_BUNDLE_KEY": "key"}).bundle_key == Path("key")
