"""`make up` and its kin: from a host to a server that is ready, and back."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from env.loading import PROJECT
from env.settings import Settings
from runtime import demo
from runtime.listen_address import local_name
from runtime.ops.lifecycle import alone, commands, host, image, kept_logs, monitoring, own_compose
from runtime.ops.lifecycle.commands import DockerError
from runtime.ops.lifecycle.readiness import NotReadyError, await_ready
from runtime.ops.process import health

COMPOSE = PROJECT / "docker" / "compose.yaml"
SERVICE = "asr"
CLIP = (demo.CLIPS / "english-1.wav").relative_to(PROJECT)
ONCE_READY = "unless-stopped"  # survives a crash and a reboot of the host; docker/compose.yaml says why not before
OTHER_PORTS = "for a port that is taken: ASR_PORT, or of what watches the server ASR_GRAFANA_PORT, ASR_PROMETHEUS_PORT"


def up(settings: Settings, *, on_stage: Callable[[str], None], root: Path = Path("/")) -> str:
    """Have the server, or with ASR_VLLM_ALONE a vLLM, run and be ready, and what watches it answer; returns its URL.
    Nothing changes where they run already as the settings say.

    Raises KitError where settings contradict each other, an image cannot be had, a container cannot start, or it ends
    before it is ready. Then the server is stopped, so that it does not start again and again.
    """
    alone.check(settings)
    commands.check_engine()
    image.ensure(settings)
    image.check_stack(settings)
    if monitoring.wanted(settings):
        monitoring.prepare(settings)
    host.write_host_file(settings, root=root)
    with kept_logs.kept(settings, container_id(settings)):
        compose(settings, "up", "--detach", "--remove-orphans", advice=OTHER_PORTS)
    container = container_id(settings)
    try:
        ask = alone.ask if settings.vllm_alone else health.ask
        await_ready(container, partial(ask, url(settings)), on_stage=on_stage)
    except NotReadyError:
        compose(settings, "stop")
        raise
    commands.run(["docker", "update", "--restart", ONCE_READY, container])
    if monitoring.wanted(settings):
        monitoring.await_answers(settings, lambda service: container_id(settings, service))
    return url(settings)


def down(settings: Settings) -> bool:
    """Drain the server, and remove the containers and their network; returns False where there was none. What
    Prometheus has recorded is kept."""
    commands.check_engine()
    if not host.host_file(settings).exists():
        return False
    with kept_logs.kept(settings, container_id(settings)):
        compose(settings, "down", "--remove-orphans")
    monitoring.remove(settings)
    host.host_file(settings).unlink()
    return True


def compose(settings: Settings, *words: str, advice: str = "") -> None:
    """Run a compose command on this host's server. Raises DockerError if there never was one, or if it fails: then with
    `advice`."""
    commands.run(_compose(settings, *words), advice=advice)


def container_id(settings: Settings, service: str = SERVICE) -> str:
    """The container of a service, running or not; empty if there is none."""
    return commands.ask(_compose(settings, "ps", "--all", "--quiet", service))


def url(settings: Settings) -> str:
    """Where the server answers, as seen from this host."""
    scheme = "https" if settings.tls_cert_file else "http"
    return f"{scheme}://{local_name(settings.host)}:{settings.port}"


def try_curl(settings: Settings) -> None:
    """Show and run the curl command that an operator can start from. Raises DockerError if it fails."""
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    if settings.tls_cert_file:  # which is for the name that clients use, not for this machine's addresses
        command.append("--insecure")
    if settings.api_key or settings.keys_file:  # a key does not belong into a command line
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
    options = ["--project-name", host.project_name(settings)]
    options += commands.files(COMPOSE, second, *own_compose.files(settings))
    if monitoring.wanted(settings):
        options += ["--profile", monitoring.PROFILE]
    return [*commands.compose(), *options, *words]
