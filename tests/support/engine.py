"""A real container engine for the tests, and an image to build on that needs no registry."""

import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tree import bare_environment, clone_into

BASE = "qwen3-asr-kit-test/bookworm:1"
# As in python:3.11-slim-bookworm, whose place this takes: Python, pip, certificates.
PACKAGES = "python3,python3-pip,ca-certificates"
# pip may install into the system's Python there; and what apt keeps of its work is not needed.
UNWANTED = ("usr/lib/python3.11/EXTERNALLY-MANAGED", "var/cache/apt", "var/lib/apt/lists")


@dataclass(frozen=True)
class Host:
    """A clone of the kit on a host of its own, as far as settings and port go."""

    clone: Path
    environment: dict[str, str]
    port: int

    def make(self, target: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a make target."""
        return run(["make", target], cwd=self.clone, environment={**self.environment, **changes})

    def containers(self, *options: str) -> list[str]:
        """The ids of this host's containers."""
        project = f"label=com.docker.compose.project=qwen3-asr-{self.port}"
        return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", project, *options).split()

    def container(self, service: str) -> dict[str, Any]:
        """The one container of a service, as Docker describes it."""
        (identity,) = self.containers("--filter", f"label=com.docker.compose.service={service}")
        (described,) = json.loads(docker("inspect", identity))
        return dict(described)


def cloned(directory: Path) -> Host:
    """A host whose clone builds its image on a base that needs no registry."""
    base, port = stand_in_base(), free_port()
    clone = clone_into(directory)
    if os.environ.get("PIP_CERT"):
        shutil.copy(os.environ["PIP_CERT"], clone / "docker" / "certificates" / "house.crt")
    return Host(clone, bare_environment(ASR_BASE_IMAGE=base, ASR_PORT=str(port)), port)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(words: list[str], *, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody types it; what it prints is in `stdout`, both streams."""
    return subprocess.run(
        words,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )


def unavailable(reason: str) -> None:
    """Skip, saying why. In CI, whose script starts an engine, that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"no container was tested: {reason}")
    pytest.skip(reason)


def docker(*words: str, stdin: bytes | None = None) -> str:
    """What a docker command prints. Raises CalledProcessError if it fails."""
    result = subprocess.run(["docker", *words], input=stdin, capture_output=True, check=False)
    assert result.returncode == 0, f"docker {' '.join(words)}: {result.stderr.decode()}"
    return result.stdout.decode().strip()


def check_engine() -> None:
    """Skip the test where no engine answers."""
    found = subprocess.run(["docker", "info"], capture_output=True, check=False) if shutil.which("docker") else None
    if found is None or found.returncode:
        unavailable("no docker engine answers: install docker.io and docker-compose, and start dockerd")


def await_event(container: str, event: str, *, since: str) -> None:
    """Return when Docker has told of an event, which may be in the past."""
    options = ("--since", since, "--filter", f"container={container}", "--format", "{{.Status}}")
    with subprocess.Popen(["docker", "events", *options], stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout
        assert any(line.strip() == event for line in events.stdout)
        events.terminate()


def stand_in_base() -> str:
    """The name of a Debian image with Python, made by debootstrap unless it is there."""
    check_engine()
    if docker("images", "--quiet", BASE):
        return BASE
    if not shutil.which("debootstrap") or os.geteuid():
        unavailable("the image to build on is made by debootstrap, as root: apt-get install debootstrap")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        for name in UNWANTED:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        archive = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        with archive:
            subprocess.run(["docker", "import", "-", BASE], stdin=archive.stdout, capture_output=True, check=True)
    return BASE


def layered(base: str, name: str, *, instructions: str, files: Mapping[str, str | bytes]) -> str:
    """Build an image on `base`, with `files` (by path from the context's root); returns its name."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, text in {**files, "Dockerfile": f"FROM {base}\n{instructions}\n"}.items():
            content = text if isinstance(text, bytes) else text.encode()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    docker("build", "--quiet", "--tag", name, "-", stdin=context.getvalue())
    return name
