"""`make up` and its kin: from a host to a server that is ready, and back."""

import shutil
from collections.abc import Callable
from pathlib import Path

from env.loading import PROJECT
from env.settings import Settings
from runtime import demo
from runtime.ops.lifecycle import commands, host, image
from runtime.ops.lifecycle.commands import DockerError
from runtime.ops.lifecycle.readiness import NotReadyError, await_ready

COMPOSE = PROJECT / "docker" / "compose.yaml"
SERVICE = "asr"
OPEN = "0.0.0.0"
CLIP = (demo.CLIPS / "english-1.wav").relative_to(PROJECT)
ONCE_READY = "unless-stopped"  # survives a crash and a reboot of the host; docker/compose.yaml says why not before


def up(settings: Settings, *, on_stage: Callable[[str], None], root: Path = Path("/")) -> str:
    """Have the server run and be ready; returns its URL. Nothing changes where it runs already as the settings say.

    Raises KitError where the image cannot be had, the container cannot start, or it ends before it is ready. Then it is
    stopped, so that it does not start again and again.
    """
    commands.check_engine()
    image.ensure(settings)
    image.check_stack(settings)
    host.write_host_file(settings, root=root)
    compose(settings, "up", "--detach", "--remove-orphans")
    container = container_id(settings)
    try:
        await_ready(container, url(settings), on_stage=on_stage)
    except NotReadyError:
        compose(settings, "stop")
        raise
    commands.run(["docker", "update", "--restart", ONCE_READY, container])
    return url(settings)


def down(settings: Settings) -> bool:
    """Drain the server, and remove its container and network; returns False where there was none."""
    commands.check_engine()
    if not host.host_file(settings).exists():
        return False
    compose(settings, "down", "--remove-orphans")
    host.host_file(settings).unlink()
    return True


def compose(settings: Settings, *words: str) -> None:
    """Run a compose command on this host's server. Raises DockerError if there never was one, or if it fails."""
    commands.run(_compose(settings, *words))


def container_id(settings: Settings) -> str:
    """The server's container, running or not; empty if there is none."""
    return commands.ask(_compose(settings, "ps", "--all", "--quiet", SERVICE))


def url(settings: Settings) -> str:
    """Where the server answers, as seen from this host."""
    return f"http://{'127.0.0.1' if settings.host == OPEN else settings.host}:{settings.port}"


def try_curl(settings: Settings) -> None:
    """Show and run the curl command that an operator can start from. Raises DockerError if it fails."""
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    if settings.keys_file:  # which of them it shall be is not ours to say
        command.append(f"{url(settings)}/health/ready")
    else:
        command += ["--form", f"file=@{CLIP}", f"{url(settings)}/v1/audio/transcriptions"]
    if shutil.which("curl"):
        commands.run(command)
        print()


def _compose(settings: Settings, *words: str) -> list[str]:
    second = host.host_file(settings)
    if not second.exists():
        raise DockerError(second.name, "is not there: no server was started on this port", "make up")
    files = commands.files(COMPOSE, second)
    return [*commands.compose(), "--project-name", host.project_name(settings), *files, *words]
