"""A bundle's installer: what it takes over, keeps and refuses. Docker is a stand-in; test_bundle.py has a real one."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tree import bare_environment, clone_into

from env.errors import KitError
from env.sources import PROJECT, load_settings
from runtime.ops import bundle as signing
from runtime.weights import lockfile
from runtime.weights.lockfile import LockedFile, LockedModel

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
        "pyproject.toml": f'[project]\nname = "qwen3-asr-ascend-kit"\nversion = "{version}"\n',
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


def test_what_an_earlier_kit_held_of_the_hosts_own_stays(tmp_path: Path, commands: dict[str, str]) -> None:
    target = tmp_path / "kit"
    assert install(make_bundle(tmp_path / "first", "1.0", "dropped"), commands, str(target)).returncode == 0
    own = ("weights/weights.lock", "docker/certificates/house.crt", "docker/kubernetes/own/kustomization.yaml")
    for name in own:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("mine")
    listed = (target / ".installed").read_text().splitlines()
    (target / ".installed").write_text("".join(f"{name}\n" for name in sorted([*listed, *own])))
    result = install(make_bundle(tmp_path / "second", "2.0"), commands, str(target))
    assert result.returncode == 0, result.stderr
    assert not (target / "runtime/dropped.py").exists()
    assert {(target / name).read_text() for name in own} == {"mine"}


def test_a_lock_that_stays_is_told_of_models_that_are_added(tmp_path: Path, commands: dict[str, str]) -> None:
    def entry(size: int) -> LockedModel:
        return LockedModel("huggingface", files={"model.safetensors": LockedFile(size, "0" * 64)})

    target, bundle = tmp_path / "kit", make_bundle(tmp_path / "bundle", "1.0", weights="new")
    path = target / "weights/weights.lock"
    path.parent.mkdir(parents=True)
    lockfile.write(path, {"an/Old": entry(1), "an/Own": entry(2)})
    path.write_text(path.read_text().rstrip())
    lockfile.write(bundle / "weights/weights.lock", {"an/Old": entry(3), "an/Added": entry(4), "an/Other": entry(5)})
    write_sums(bundle)
    result = install(bundle, commands, str(target))
    assert result.returncode == 0, result.stderr
    assert "Added to weights/weights.lock: an/Added, an/Other\n" in result.stdout
    sizes = {repo: found.size for repo, found in lockfile.read(path).items()}
    assert sizes == {"an/Old": 1, "an/Own": 2, "an/Added": 4, "an/Other": 5}
    again = path.read_text()
    assert "Added" not in install(bundle, commands, str(target)).stdout
    assert path.read_text() == again


@pytest.mark.parametrize("git", [False, True], ids=["unpacked", "clone"])
def test_a_kit_is_packed_without_what_is_the_hosts_own(tmp_path: Path, git: bool) -> None:
    clone = clone_into(tmp_path / "clone")
    tracked = {str(path.relative_to(clone)) for path in clone.rglob("*") if path.is_file()}
    own = ("weights/weights.lock", "docker/certificates/house.key", "docker/kubernetes/own/kustomization.yaml")
    made = (".clients/node/x", ".env", ".installed", "out/x", "runtime/__pycache__/x.pyc")
    for name in (*own, *made):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("mine")
    if git:
        subprocess.run(["git", "init", "--quiet"], cwd=clone, check=True)
        subprocess.run(["git", "add", "docker", "weights"], cwd=clone, check=True)
    code = "import sys; from pathlib import Path; from runtime.ops import bundle; bundle.pack_kit(Path(sys.argv[1]))"
    command = [sys.executable, "-B", "-c", code, str(tmp_path / "kit.tar")]
    subprocess.run(command, cwd=clone, env=bare_environment(), check=True)
    with tarfile.open(tmp_path / "kit.tar") as archive:
        assert set(archive.getnames()) == tracked


def test_a_python_that_has_gone_is_replaced(tmp_path: Path, commands: dict[str, str]) -> None:
    bundle, target = make_bundle(tmp_path / "bundle", "1.0"), tmp_path / "kit"
    assert install(bundle, commands, str(target)).returncode == 0
    (target / ".venv/installed").unlink()
    (target / ".venv/bin/python").unlink()
    (target / ".venv/bin/python").symlink_to("/usr/bin/python3.9-that-was")
    result = install(bundle, commands, str(target))
    assert result.returncode == 0, result.stderr
    assert (target / ".venv/installed").is_file()


def test_only_a_kit_or_what_was_put_there_for_one_may_be_there(tmp_path: Path, commands: dict[str, str]) -> None:
    bundle, other = make_bundle(tmp_path / "bundle", "1.0", weights="new"), tmp_path / "app"
    (other / ".venv/bin").mkdir(parents=True)
    (other / "pyproject.toml").write_text('name = "app"\n')
    (other / ".venv/bin/python").write_text("theirs")
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    (tmp_path / "file").write_text("x")
    for target, reason in ((other, f"{other} holds something else, such as "), (tmp_path / "file", "is no directory")):
        result = install(bundle, commands, str(target))
        assert (result.returncode, reason in result.stderr) == (1, True), result.stderr
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before

    prepared = tmp_path / "prepared"
    (prepared / "weights/own").mkdir(parents=True)
    (prepared / ".env").write_text("ASR_PORT=8001\n")
    result = install(bundle, commands, str(prepared))
    assert result.returncode == 0, result.stderr
    assert "Kept: weights/own\n" in result.stdout
    assert (prepared / ".env").read_text() == f"ASR_IMAGE={IMAGE.format('1.0')}\nASR_PORT=8001\n"
    # As uninstall leaves it.
    (prepared / ".installed").unlink()
    (prepared / ".loaded-images").unlink()
    assert install(bundle, commands, str(prepared)).returncode == 0


def test_a_bundle_that_names_no_image_leaves_the_settings(tmp_path: Path, commands: dict[str, str]) -> None:
    bundle, target = make_bundle(tmp_path / "bundle", "1.0"), tmp_path / "kit"
    assert install(bundle, commands, str(target)).returncode == 0
    before = (target / ".env").read_text()
    (bundle / "settings.env").write_text("ASR_PROFILE=cpu\n")
    write_sums(bundle)
    result = install(bundle, commands, str(target))
    assert result.returncode == 1
    assert "settings.env names no ASR_IMAGE → have the bundle made again" in result.stderr
    assert (target / ".env").read_text() == before
    assert (tmp_path / "docker.log").read_text().count("load ") == 1


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
