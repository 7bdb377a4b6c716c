"""The offline handoff: all that a host without internet needs, in one directory or tar."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from env.errors import KitError
from env.field import PREFIX, is_secret, variable
from env.install import read_lock
from env.locks import lock_path
from env.settings import DEMO, Settings
from env.sources import PROJECT, operator_environment, under_project
from env.stacks import load_stack
from runtime import version
from runtime.files import make_private
from runtime.host import docker
from runtime.ops.deploy import image
from runtime.ops.deploy.override import NOT_HANDED_ON
from runtime.weights import verify

NAMESPACE = "qwen3-asr-bundle"  # so that a signature for something else is none for a bundle
VARIABLE = variable("bundle_key")

SUMS = "SHA256SUMS"
CHUNK = 2**20  # bytes read at a time
# At the project's root, and no part of the kit.
MADE_HERE = {".venv", ".vllm", ".reference", ".clients", ".env", ".installed", ".loaded-images", "out", "weights"}
# Where operators put files of their own, which docker/install.sh leaves alone.
OWN = ("docker/certificates", "docker/kubernetes/own")
# What a wheel's name may say that fits glibc 2.17 or newer, as pip wants it spelled out.
PLATFORMS = ("manylinux_2_17", "manylinux_2_28", "manylinux_2_31", "manylinux2014")


def check(key: Path) -> None:
    """Raises KitError where nothing could be signed with a key, for as much as can be told without its passphrase."""
    if not shutil.which("ssh-keygen"):
        raise KitError("ssh-keygen", "is not installed", "install your distribution's openssh-client package")
    if not key.is_file():
        raise KitError(VARIABLE, f"{key} is no file", "correct it, or unset it; ssh-keygen -t ed25519 makes a key")
    result = _ssh_keygen("-l", "-f", str(key))
    if result.returncode:
        raise KitError(VARIABLE, f"{key}: {_words(result)}", "name an SSH key: ssh-keygen -t ed25519 makes one")


def sign(key: Path, path: Path) -> None:
    """Write the signature of a file beside it, `<name>.sig`. A passphrase is asked for on the terminal.

    Raises KitError where it cannot be signed.
    """
    result = _ssh_keygen("-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(path))
    if result.returncode:
        advice = "ssh-add it where its passphrase cannot be typed"
        raise KitError(VARIABLE, f"{key} does not sign: {_words(result)}", advice)


def _ssh_keygen(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["ssh-keygen", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _words(result: "subprocess.CompletedProcess[str]") -> str:
    return (result.stderr or result.stdout).strip().replace("\r", "").replace("\n", "; ")


class BundleError(KitError):
    """A bundle that cannot be written."""


def write(settings: Settings, directory: Path, *, as_tar: bool, say: Callable[[str], None]) -> Path:
    """Write a bundle of what the settings name into `directory`, and return the bundle's path: a directory, or with
    `as_tar` one file.

    Raises BundleError where it is there already or cannot be written, KitError where the weights are not verified or
    the image is not on this host.
    """
    if settings.bundle_key:
        check(under_project(settings.bundle_key))
    docker.check_engine()
    built, name = image.image_name(settings), image.release_name(settings)
    if not image.labels(built):
        raise BundleError(built, "is not on this host", "make build, or make pull")
    image.tag(built, name)
    verify.require(settings, on_bytes=lambda _: None)
    bundle = directory / f"qwen3-asr-ascend-{version.version()}-{settings.profile}-{os.uname().machine}"
    final = bundle.with_name(f"{bundle.name}.tar") if as_tar else bundle
    part = bundle.with_name(f".{bundle.name}.part")
    if final.exists():
        raise BundleError(str(final), "is there already", "remove it, or choose another --output")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was cut off
    try:
        make_private(directory)
        part.mkdir()
        for words, step in _steps(settings, name, part):
            say(words)
            step()
        if as_tar:
            say("Packing")
            with tarfile.open(part.with_suffix(".tar"), "w") as archive:
                archive.add(part, arcname=bundle.name)
            part.with_suffix(".tar").replace(final)
            shutil.rmtree(part)
        else:
            part.replace(final)
    except OSError as error:
        raise BundleError(str(final), f"cannot be written: {error.strerror}", "see that there is room") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        part.with_suffix(".tar").unlink(missing_ok=True)
    return final


def _steps(settings: Settings, name: str, part: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "Saving the image", lambda: docker.run(["docker", "save", "--output", str(part / "image.tar"), name])
    yield "Packing the kit", lambda: pack_kit(part / "kit.tar")
    if settings.model != DEMO:
        yield "Adding the weights", lambda: _add_weights(settings, part / "weights")
    yield "Fetching the wheels of the host's tools", lambda: _fetch_wheels(part / "wheels")
    yield "Adding the settings", lambda: _write_settings(settings, name, part / "settings.env")
    yield "Adding the installer", lambda: shutil.copy(PROJECT / "docker" / "install.sh", part)
    yield "Computing checksums", lambda: _write_sums(part)
    if key := settings.bundle_key:
        yield "Signing", lambda: sign(under_project(key), part / SUMS)


def pack_kit(target: Path) -> None:
    """Write the kit's files into a tar: those of a clone, or of an unpacked bundle, which has no git, without what was
    made there and what operators put there. Raises OSError where it cannot be written."""
    listing = docker.read_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    names = sorted(filter(None, listing.split("\0"))) or list(_files())
    with tarfile.open(target, "w") as archive:
        for name in filter(_is_kit, names):
            archive.add(PROJECT / name, arcname=name, recursive=False)


def _files() -> Iterator[str]:
    for path in sorted(PROJECT.rglob("*")):
        if path.is_symlink() or path.is_file():
            yield str(path.relative_to(PROJECT))


def _is_kit(name: str) -> bool:
    path = Path(name)
    own = name != "docker/certificates/README.md" and any(map(path.is_relative_to, OWN))
    return not own and path.parts[0] not in MADE_HERE and "__pycache__" not in path.parts


def _add_weights(settings: Settings, target: Path) -> None:
    model = under_project(settings.model)
    shutil.copytree(model, target / model.name, copy_function=_link_or_copy)
    shutil.copy(under_project(settings.weights_lock), target / "weights.lock")
    clips = model.parent / "clips"
    if clips.is_dir():
        shutil.copytree(clips, target / clips.name, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    """Gigabytes on the same disk need not be there twice."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _fetch_wheels(target: Path) -> None:
    """Wheels of the host stack for each Python that it supports, for machines like this one."""
    machine = os.uname().machine
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{machine}")]
    for python in load_stack("host").python:
        # pip would take the lock's markers for the Python that it runs on, not for the one that is asked for.
        wanted = read_lock(lock_path("host"), python, machine)
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as requirements:
            requirements.write("".join(f"{requirement.line()}\n" for requirement in wanted))
            requirements.flush()
            command = [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary", ":all:", "--dest", str(target)),
                *("--python-version", python, *platforms, "--requirement", requirements.name),
            ]
            result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if result.returncode:
            raise BundleError("wheels", f"cannot be fetched: {result.stderr.strip()}", "set PIP_INDEX_URL to a mirror")


def _write_settings(settings: Settings, name: str, target: Path) -> None:
    """What the operator set, as far as it is true on another host, and what names the parts of the bundle."""
    found = {variable("profile"): settings.profile, variable("image"): name}
    environment = operator_environment()
    for field_name, field in type(settings).model_fields.items():
        key = variable(field_name)
        if environment.get(key) and field_name not in NOT_HANDED_ON and not is_secret(field):
            found[key] = environment[key]
    if settings.model != DEMO:
        found[variable("model")] = f"weights/{under_project(settings.model).name}"
    lines = "".join(f"{key}={text}\n" for key, text in found.items())
    target.write_text(
        f"# What was set where this bundle was made; {PREFIX}… of the environment come first.\n{lines}", "utf-8"
    )


def _write_sums(part: Path) -> None:
    lines = [f"{_sha256(path)}  {path.relative_to(part)}\n" for path in sorted(part.rglob("*")) if path.is_file()]
    (part / SUMS).write_text("".join(lines), encoding="utf-8")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()
