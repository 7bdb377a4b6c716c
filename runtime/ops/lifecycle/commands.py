"""Docker's own commands, shown before they run, so that an operator can type them again."""

import functools
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from env.errors import KitError
from env.sources import PROJECT

OLD_COMPOSE = "docker-compose"


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


def ask(command: Sequence[str]) -> str:
    """What a command prints, or an empty text if it fails or is not installed."""
    try:
        result = subprocess.run(
            command, cwd=PROJECT, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def answer(command: Sequence[str], *, timeout: float) -> str:
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
def compose() -> tuple[str, ...]:
    """The compose command of this host: v2's `docker compose`, else v1's `docker-compose`. Raises DockerError."""
    if ask(["docker", "compose", "version", "--short"]):
        return ("docker", "compose")
    if shutil.which(OLD_COMPOSE):
        return (OLD_COMPOSE,)
    raise DockerError("docker compose", "is not installed", "install docker-compose-plugin, or docker-compose 1.29")


def files(*paths: Path) -> list[str]:
    """Compose's options that name files."""
    return [word for path in paths for word in ("-f", str(path))]


SHORT = 12  # digits of a commit, or of an image's id
