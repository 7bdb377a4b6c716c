"""The image: what it is called, what it is built from, whether it is there."""

import hashlib
import json
import os
import re
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT, under_project
from env.stacks import load_stack
from runtime.host.docker import SHORT_ID, DockerError, read_output, run
from runtime.version import version

VARIABLE = "PIP_FIND_LINKS"
LOOPBACK = "127.0.0.1"
FIRST_PORT, PORTS = 20000, 10000  # below those that systems hand out on their own

NAME = "qwen3-asr-ascend"
CONTEXT_LABEL = "qwen3-asr.context"  # of docker/Dockerfile
STACK_LABEL = "qwen3-asr.stack"
CLONE_LABEL = "qwen3-asr.clone"  # given at each build: which directory of which host an image was built from
VERSION_LABEL = "org.opencontainers.image.version"
REVISION_LABEL = "org.opencontainers.image.revision"
# The host's own variables that a build takes over; Docker itself keeps proxies out of the image's history.
MIRRORS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "TORCH_INDEX", VARIABLE)
# What to do where something cannot be had, by what it is.
OTHER_BASE = "ASR_BASE_IMAGE=a mirror's copy of this base, or ASR_IMAGE=the kit's image, built elsewhere"
OTHER_IMAGE = "ASR_IMAGE=a mirror's copy, after docker login where it wants an account; or unset ASR_IMAGE: make build"
OTHER_PACKAGES = "if a package cannot be fetched: PIP_INDEX_URL, TORCH_INDEX=a mirror"
OFFLINE = "without internet: invoke bundle where there is one"
NO_PROXY = ("NO_PROXY", "no_proxy")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", *NO_PROXY)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """pip tells what it fetches."""


@contextmanager
def find_links(value: str) -> Iterator[str]:
    """PIP_FIND_LINKS as a build can use it: of what it names, a directory is served on loopback, which a build on the
    host's network reaches. Yields the new value, empty for an empty one.

    Raises KitError where a directory does not exist.
    """
    servers: list[ThreadingHTTPServer] = []
    try:
        words = []
        for word in value.split():
            if "://" in word:
                words.append(word)
                continue
            directory = under_project(word)
            if not directory.is_dir():
                raise KitError(VARIABLE, f"{word} is no directory", "name one that holds wheels, or an address")
            server = _listen(directory)
            threading.Thread(target=server.serve_forever, name=f"wheels {directory}", daemon=True).start()
            servers.append(server)
            words.append(f"http://{LOOPBACK}:{server.server_address[1]}/")
        yield " ".join(words)
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _listen(directory: Path) -> ThreadingHTTPServer:
    """A server on a port that is the same for the same directory: a build's cache counts on its arguments."""
    handler = partial(_Quiet, directory=str(directory))
    port = FIRST_PORT + zlib.crc32(bytes(directory)) % PORTS
    try:
        return ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError:
        return ThreadingHTTPServer((LOOPBACK, 0), handler)


def image_name(settings: Settings) -> str:
    """The image that the settings mean: ASR_IMAGE, else the newest one that is built here."""
    if settings.image:
        return settings.image
    return f"{NAME}:{version()}-{settings.profile}" + ("-vllm" if settings.stack == "vllm" else "")


def release_name(settings: Settings) -> str:
    """What the image that the settings mean is called after the next build, too: by version and commit, or where there
    is no git, by what it is built from. ASR_IMAGE is called as the operator does."""
    if settings.image:
        return settings.image
    built_from = _built_from(labels(image_name(settings)))
    return f"{image_name(settings)}-{built_from}" if built_from else image_name(settings)


def title(name: str) -> str:
    """An image in an operator's words: `0.1.0 (0123456789ab-dirty)`; of another's making, its name."""
    found = labels(name)
    built_from = _built_from(found)
    return f"{found.get(VERSION_LABEL, name)} ({built_from})" if built_from else name


def base_image(settings: Settings) -> str:
    """What the image is built on. Raises StackError where the stack has none for the profile and system."""
    return settings.base_image or load_stack(settings.stack).image(settings.profile, settings.base_os or "")


def ensure(settings: Settings) -> None:
    """Have the image: pulled where ASR_IMAGE names one that is not there, built where the kit's files are newer."""
    name = image_name(settings)
    if settings.image:
        if not labels(name):
            pull(settings)
    elif labels(name).get(CONTEXT_LABEL) != context_digest():
        build(settings)
    else:
        tag(name, release_name(settings))


def build(settings: Settings) -> None:
    """Build the image; what it is built on is pulled before, unless it is here, so that its digest is known.

    Raises DockerError where that or the build fails, KitError where an address carries a password.
    """
    if not labels(base_image(settings)):
        _pull(base_image(settings), OTHER_BASE)
    with find_links(os.environ.get(VARIABLE, "")) as links:
        environment = {**os.environ, VARIABLE: links}
        if LOOPBACK in links:  # pip would ask a proxy even for that
            environment |= {name: ",".join(filter(None, (os.environ.get(name), LOOPBACK))) for name in NO_PROXY}
        run(build_command(settings, environment), environment=environment, advice=f"{OTHER_PACKAGES}; {OFFLINE}")
    tag(image_name(settings), release_name(settings))


def build_command(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """The docker command that builds the image. Mirrors and proxies are named only: docker reads their values."""
    command = ["docker", "build", "--network", "host", "--target", settings.stack, "--file", "docker/Dockerfile"]
    command += ["--label", f"{CLONE_LABEL}={clone()}"]
    for name, value in _own_arguments(settings).items():
        command += ["--build-arg", f"{name}={value}"]
    for name in (*MIRRORS, *PROXIES):
        if environment.get(name):
            if name in MIRRORS:
                _refuse_password(name, environment[name])
            command += ["--build-arg", name]
    return [*command, "--tag", image_name(settings), "."]


def pull(settings: Settings) -> None:
    """Pull ASR_IMAGE; for an image that is built here, the base that it is built on."""
    if settings.image:
        _pull(settings.image, OTHER_IMAGE)
    else:
        _pull(base_image(settings), OTHER_BASE)


def _pull(name: str, advice: str) -> None:
    run(["docker", "pull", name], advice=f"{advice}; {OFFLINE}")


def pinned(name: str) -> str:
    """The name of an image that is on this host with the digest by which its registry has it, `name:tag@sha256:…`;
    empty where it came from none."""
    if "@" in name:
        return name
    found: list[str] = (
        json.loads(read_output(["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", name]) or "null")
        or []
    )
    repository = re.sub(r":[^/:]+$", "", name)
    known = {other: digest for other, _, digest in (entry.partition("@") for entry in found)}
    digest = known.get(repository) or next(iter(known.values()), "")
    return f"{name}@{digest}" if digest else ""


def labels(name: str) -> dict[str, str]:
    """The labels of an image that is on this host; empty if it is not."""
    found = read_output(["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", name])
    return dict(json.loads(found) or {"": ""}) if found else {}


def identity(name: str) -> str:
    """The id of an image that is on this host, `sha256:…`; empty if it is not."""
    return read_output(["docker", "image", "inspect", "--format", "{{.Id}}", name])


def names(name: str) -> list[str]:
    """What an image that is on this host is called."""
    return (
        json.loads(read_output(["docker", "image", "inspect", "--format", "{{json .RepoTags}}", name]) or "null") or []
    )


def tag(name: str, other: str) -> None:
    """Give an image, by name or id, another name, unless it has it. Raises DockerError where it is not there."""
    if identity(other) != identity(name):
        run(["docker", "tag", name, other])


def clone() -> str:
    """Which clone of the kit this is, among those whose images a host may have: a digest of its path."""
    return hashlib.sha256(bytes(PROJECT)).hexdigest()[:SHORT_ID]


def check_stack(settings: Settings) -> None:
    """Raises DockerError where the image was built for another stack than the settings want."""
    there = labels(image_name(settings)).get(STACK_LABEL, settings.stack)
    if there != settings.stack:
        reason = f"has the {there} stack, but ASR_STACK is {settings.stack} ({settings.origin('stack')})"
        raise DockerError(image_name(settings), reason, f"{cure(settings, there)}, or set ASR_IMAGE")


def cure(settings: Settings, here: str) -> str:
    """How the settings come to want the stack that is `here`: by ASR_STACK, but for the stack without NPUs by its own
    profile, as the others name a device that it does not have."""
    if here == "cpu" != settings.profile:
        return "export ASR_PROFILE=cpu"
    return f"export ASR_STACK={load_stack(here).stands_for or here}"


def context_digest() -> str:
    """sha256 of all that a build sees: what .dockerignore lets through, and the Dockerfile."""
    digest = hashlib.sha256()
    for path in [PROJECT / "docker" / "Dockerfile", *_context()]:
        executable = os.access(path, os.X_OK)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(PROJECT)} {executable} {content}\n".encode())
    return digest.hexdigest()


def _ignore_file() -> tuple[list[str], list[str]]:
    """What .dockerignore lets through, and what of that it leaves out again."""
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line[1:] for line in lines if line[:1] == "!"], [
        line for line in lines if line[:1] not in ("", "!", "#", "*")
    ]


def _context() -> list[Path]:
    let_through, left_out = _ignore_file()
    found: set[Path] = set()
    for entry in (PROJECT / name for name in let_through):
        found.update([entry] if entry.is_file() else (path for path in entry.rglob("*") if path.is_file()))
    left = [PROJECT / name for name in left_out]
    return sorted(path for path in found if "__pycache__" not in path.parts and not any(map(path.is_relative_to, left)))


def _own_arguments(settings: Settings) -> dict[str, str]:
    return {
        "BASE_IMAGE": base_image(settings),
        "BASE_DIGEST": pinned(base_image(settings)).partition("@")[2],
        "STACK": settings.stack,
        "ASR_TORCH_NPU": settings.torch_npu,
        "VERSION": version(),
        "REVISION": revision(),
        "CONTEXT": context_digest(),
    }


def revision() -> str:
    """The commit that is checked out, with -dirty where something that a build sees differs; empty without git or a
    clone. What an operator's own steps write beside it, such as weights/weights.lock, is no other code."""
    commit = read_output(["git", "rev-parse", "HEAD"])
    let_through, left_out = _ignore_file()
    seen = ["docker/Dockerfile", ".dockerignore", *let_through, *(f":!{name}" for name in left_out)]
    return commit + ("-dirty" if commit and read_output(["git", "status", "--porcelain", "--", *seen]) else "")


def _built_from(found: Mapping[str, str]) -> str:
    """The commit, or without one the digest, of an image's labels, as far as one types it: 0123456789ab-dirty."""
    commit, dash, dirty = (found.get(REVISION_LABEL) or found.get(CONTEXT_LABEL, "")).partition("-")
    return f"{commit[:SHORT_ID]}{dash}{dirty}"


def _refuse_password(name: str, addresses: str) -> None:
    if any(urlsplit(address).password for address in addresses.split()):
        reason = "has a password, which the image's history would keep"
        raise KitError(name, reason, "let a proxy or mirror on this host add it, and name that one")
