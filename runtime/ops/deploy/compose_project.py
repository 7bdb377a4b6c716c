"""The compose project of a port, as Docker tells of it by compose's labels: its containers, and whose they are."""

from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.host import docker
from runtime.ops.deploy.override import project_name

COMPOSE = PROJECT / "docker" / "compose.yaml"
SERVICE = "asr"
PROJECT_LABEL = "com.docker.compose.project"
DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
SERVICE_LABEL = "com.docker.compose.service"
FORM = "\t".join(("{{.ID}}", "{{.Names}}", "{{.Status}}", f'{{{{.Label "{DIRECTORY_LABEL}"}}}}'))
TIMEOUT = 60.0  # seconds for docker to say which containers there are


@dataclass(frozen=True)
class ComposeContainer:
    """A container of `make up`: `status` is as docker ps shows it, `Up 3 hours (healthy)`, `directory` that of the
    compose file by which it was started, empty where nobody told."""

    id: str
    name: str
    status: str
    directory: str

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.status.startswith("Up")

    @property
    def state(self) -> str:
        """Where it does not run: restarting, stopped or failed."""
        if self.status.startswith("Restarting"):
            return "restarting"
        return "stopped" if self.status.startswith(("Created", "Exited (0)")) else "failed"

    def logs(self, lines: int, *, follow: bool) -> list[str]:
        """The command that prints the end of its log."""
        return ["docker", "logs", "--tail", str(lines), *(["--follow"] if follow else []), self.name]

    def __str__(self) -> str:
        return f"the container {self.name} of make up ({self.status})"


def filters(settings: Settings, service: str = "") -> list[str]:
    """Docker's options for what belongs to the port's project, or to one of its services."""
    labels = {PROJECT_LABEL: project_name(settings), **({SERVICE_LABEL: service} if service else {})}
    return [word for name, text in labels.items() for word in ("--filter", f"label={name}={text}")]


def containers(settings: Settings, service: str = "", *, timeout: float = TIMEOUT) -> list[ComposeContainer]:
    """The containers of the port's project, or of one of its services, running or not. Raises DockerError where Docker
    does not tell within `timeout` seconds."""
    command = ["docker", "ps", "--all", "--no-trunc", "--format", FORM, *filters(settings, service)]
    return [
        ComposeContainer(*line.split("\t")) for line in docker.require_output(command, timeout=timeout).splitlines()
    ]


def container_id(settings: Settings, service: str = SERVICE) -> str:
    """The container of a service, running or not; empty if there is none. Raises DockerError."""
    return next((container.id for container in containers(settings, service)), "")


def own_containers(settings: Settings, target: str = "down") -> list[ComposeContainer]:
    """The containers of the port's project, if they are this clone's. Containers started from a directory that is gone
    count as this clone's: the clone may have been moved. Raises KitError, which names the make `target` to type in the
    other clone, where they are another clone's."""
    found = containers(settings)
    for container in found:
        if container.directory not in ("", str(COMPOSE.parent)) and not _is_gone(container.directory):
            clone = Path(container.directory).parent
            advice = f"ASR_PORT={settings.port} make -C {clone} {target}, or another ASR_PORT here"
            raise KitError(container.name, f"has port {settings.port}, and is the server of {clone}", advice)
    return found


def _is_gone(directory: str) -> bool:
    """Whether a directory is not there; one that cannot be looked at may be."""
    try:
        Path(directory).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
