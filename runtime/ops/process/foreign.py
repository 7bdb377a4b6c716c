"""A server on the settings' port that `invoke start` did not start: the container of `make up`, a unit of systemd, or
`invoke serve` typed by hand."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from env.settings import Settings
from runtime.host.local_client import UNRESPONSIVE, Health, ask_health, find_health
from runtime.host.processes import find_listener
from runtime.ops.deploy import standalone
from runtime.ops.deploy.compose_project import SERVICE, ComposeContainer, containers
from runtime.urls import url

FOREIGN_DOCKER_TIMEOUT = 3.0  # seconds for docker to list containers
FOREIGN_HEALTH_TIMEOUT = 2.0  # seconds for a health check
PID_PATTERN = re.compile(r"\bpid (\d+)\b")
UNIT_PATTERN = re.compile(r"/(qwen3-asr[\w@.\\-]*\.service)$", re.MULTILINE)  # in /proc/<pid>/cgroup


@dataclass(frozen=True)
class ForeignServer:
    """A server that `invoke start` did not start: its `description`, its `health` (None if it does not run), and what
    to type instead of `invoke stop`, `restart` and `logs`. `container` is None if it runs in none."""

    description: str
    health: Health | None
    stop: str
    restart: str
    logs: str
    container: ComposeContainer | None = None

    @property
    def state(self) -> str:
        """The status of its health, or the state of its container."""
        if self.health:
            return self.health.status
        return self.container.state if self.container else "absent"


def find_foreign(settings: Settings) -> ForeignServer | None:
    """The server on the settings' port that `invoke start` did not start; None if there is none."""
    container, address = find_container(settings), url(settings)
    if container:
        health = None
        if container.running and settings.vllm_alone:
            health = standalone.ask_vllm(address)
        elif container.running:
            health = ask_health(address, timeout=FOREIGN_HEALTH_TIMEOUT)
        return ForeignServer(str(container), health, "make down", "make restart", "make logs", container)
    holder = find_listener(settings.host, settings.port)
    health = find_health(address, timeout=FOREIGN_HEALTH_TIMEOUT) if holder else None
    if health is None or health.status == UNRESPONSIVE:  # another program, as far as one can tell
        return None
    if name := find_unit(holder):
        command = f"sudo systemctl {{}} {name}"
        stop, restart, logs = command.format("stop"), command.format("restart"), f"journalctl --unit {name}"
        return ForeignServer(f"{name} of systemd", health, stop, restart, logs)
    pids = " ".join(PID_PATTERN.findall(holder))
    stop = f"kill {pids} drains it" if pids else "end it where it was started"
    return ForeignServer(f"{holder}, which `invoke start` did not start", health, stop, stop, "its output has its log")


def check_not_foreign(settings: Settings, task: str) -> None:
    """Raises KitError, which names the command to type instead, if `invoke start`, `stop`, `restart` or `logs` is not
    for the server that runs on the settings' port."""
    server = find_foreign(settings)
    if server and (server.health or server.state == "restarting"):
        command = {"restart": server.restart, "logs": server.logs}.get(task, server.stop)
        raise KitError(f"invoke {task}", f"the server on port {settings.port} is {server.description}", command)


def find_container(settings: Settings) -> ComposeContainer | None:
    """The container of `make up` for the settings' port, running or not; None if there is none, or Docker does not
    answer."""
    with contextlib.suppress(KitError):
        return next(iter(containers(settings, SERVICE, timeout=FOREIGN_DOCKER_TIMEOUT)), None)
    return None


def find_unit(holder: str) -> str:
    """The kit's systemd unit that a process in `holder` belongs to, see `find_listener`; empty if to none. It has no
    pid of another user's process: then the kit's only running unit is taken."""
    cgroups = [Path("/proc", pid, "cgroup") for pid in PID_PATTERN.findall(holder)]
    found: set[str] = set()
    for path in cgroups or Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):  # ended meanwhile
            found.update(UNIT_PATTERN.findall(path.read_text(encoding="utf-8")))
    return found.pop() if len(found) == 1 else ""
