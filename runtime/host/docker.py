"""Docker's own commands, shown before they run, so that an operator can type them again."""

import functools
import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from env.errors import KitError
from env.sources import PROJECT
from runtime.host.local_client import Health

OLD_COMPOSE = "docker-compose"

READY_POLL_SECONDS = 0.5  # seconds between two looks
CONTAINER_LOG_LINES = 25  # lines of the log that are shown of a container that ended
START_PERIOD = 900  # seconds, as of the image's health check: docker/Dockerfile


class DockerError(KitError):
    """Docker, or compose, is missing, not reachable, or failed."""


def show(command: Sequence[str]) -> None:
    """Print a command as one types it, with paths as seen from the project's root."""
    words = [word.replace(f"{PROJECT}/", "") for word in command]
    Console(stderr=True).print(f"$ {shlex.join(words)}", style="dim", highlight=False, markup=False, soft_wrap=True)


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, advice: str = "") -> None:
    """Show and run a command in the project's root, its output going where this process's goes.

    Raises DockerError, with `advice`, if it fails: the command has told why.
    """
    show(command)
    result = subprocess.run(command, cwd=PROJECT, env=environment, check=False)
    if result.returncode:
        raise DockerError(shlex.join(command[:3]), f"ended with exit code {result.returncode}, see above", advice)


def read_output(command: Sequence[str]) -> str:
    """What a command prints, or an empty text if it fails or is not installed."""
    try:
        result = subprocess.run(
            command, cwd=PROJECT, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def require_output(command: Sequence[str], *, timeout: float) -> str:
    """What a command prints. Raises DockerError where it cannot be run, fails, or takes longer than `timeout` seconds:
    nothing, and not knowing, are two things."""
    words = shlex.join(command[:2])
    try:
        result = subprocess.run(
            command, cwd=PROJECT, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=timeout
        )
    except OSError as error:
        raise DockerError(command[0], f"cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise DockerError(words, f"did not answer within {timeout:g} s", "sudo systemctl status docker") from None
    if result.returncode:
        raise DockerError(words, result.stderr.strip() or f"ended with exit code {result.returncode}")
    return result.stdout


def check_engine() -> None:
    """Raises DockerError where there is no docker, no engine behind it, or no right to use it."""
    if not shutil.which("docker"):
        raise DockerError("docker", "is not installed", "install your distribution's docker, or docker-engine, package")
    result = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode:
        words = result.stderr.strip().partition("\n")[0] or result.stdout.strip()
        denied = "permission denied" in words.lower()
        advice = "sudo usermod -aG docker $USER, then log in again" if denied else "sudo systemctl start docker"
        raise DockerError("docker", f"the engine cannot be reached: {words}", advice)


@functools.cache
def compose_command() -> tuple[str, ...]:
    """The compose command of this host: v2's `docker compose`, else v1's `docker-compose`. Raises DockerError."""
    if read_output(["docker", "compose", "version", "--short"]):
        return ("docker", "compose")
    if shutil.which(OLD_COMPOSE):
        return (OLD_COMPOSE,)
    raise DockerError("docker compose", "is not installed", "install docker-compose-plugin, or docker-compose 1.29")


def file_options(*paths: Path) -> list[str]:
    """Compose's options that name files."""
    return [word for path in paths for word in ("-f", str(path))]


SHORT_ID = 12  # digits of a commit, or of an image's id


class NotReadyError(KitError):
    """A container that ended, or that its health check gave up on."""


@dataclass(frozen=True)
class ContainerState:
    """A container as Docker sees it. `health` is starting, healthy or unhealthy, or empty where nobody checks it."""

    status: str
    exit_code: int
    restarts: int
    health: str

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "ContainerState":
        """As docker inspect describes a container."""
        state = entry["State"]
        health = (state.get("Health") or {}).get("Status", "")
        return cls(state["Status"], state["ExitCode"], entry["RestartCount"], health)


def container_state(container: str) -> ContainerState:
    """The state of a container, by name or id. Raises NotReadyError where there is none."""
    found = read_output(["docker", "inspect", "--type", "container", container])
    if not found:
        raise NotReadyError(container, "is gone", "make up")
    (entry,) = json.loads(found)
    return ContainerState.of(entry)


def await_ready(
    container: str, ask: Callable[[], Health], *, on_stage: Callable[[str], None], limit: float = START_PERIOD
) -> None:
    """Return when what runs in the container says that it is ready, which `ask` finds out; `on_stage` hears how far it
    is.

    Raises NotReadyError with the end of the container's log where it ended or its health check gave up. The health
    check's own start period bounds the wait; where an operator's compose file disables the check, `limit` seconds do.
    """
    until = time.monotonic() + limit
    while True:
        state = container_state(container)
        if state.status not in ("created", "running") or state.restarts:
            # Docker forgets the exit code of a container that it has started again.
            code = f" with exit code {state.exit_code}" if state.status == "exited" else ""
            reason = f"ended{code} before it was ready; the end of its log:\n{read_log_end(container)}"
            raise NotReadyError(container[:SHORT_ID], reason)
        if state.health == "unhealthy" or (not state.health and time.monotonic() > until):
            reason = f"runs but did not get ready; the end of its log:\n{read_log_end(container)}"
            raise NotReadyError(container[:SHORT_ID], reason, "make logs")
        health = ask()
        on_stage(health.stage)
        if health.status == "ready":
            return
        time.sleep(READY_POLL_SECONDS)


def read_log_end(container: str) -> str:
    """The end of a container's log, both streams."""
    return read_output(["sh", "-c", f'docker logs --tail {CONTAINER_LOG_LINES} "$0" 2>&1', container])
