"""A server on the settings' port that `invoke start` did not start: the container of `make up`, a unit of systemd, or
`invoke serve` typed by hand."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from env.settings import Settings
from runtime.host.local_client import UNRESPONSIVE, Health, ask_health, heard
from runtime.host.processes import listener
from runtime.ops.deploy import standalone
from runtime.ops.deploy.compose_project import SERVICE, ComposeContainer, containers
from runtime.urls import url

DOCKER_TIMEOUT = 3.0  # seconds for docker to say which containers there are
TIMEOUT = 2.0  # seconds for a server to say how it is
PID = re.compile(r"\bpid (\d+)\b")
UNIT = re.compile(r"/(qwen3-asr[\w@.\\-]*\.service)$", re.MULTILINE)  # in /proc/<pid>/cgroup


@dataclass(frozen=True)
class ForeignServer:
    """Such a server: `who` it is, its `health`, None where it does not run, and what to type instead of `invoke stop`,
    `restart` and `logs`. `container` is None where it is in none."""

    who: str
    health: Health | None
    stop: str
    restart: str
    logs: str
    container: ComposeContainer | None = None

    @property
    def state(self) -> str:
        """Its health's status, or what became of its container."""
        if self.health:
            return self.health.status
        return self.container.state if self.container else "absent"


def find(settings: Settings) -> ForeignServer | None:
    """The server on the settings' port that `invoke start` did not start; None where there is none."""
    found = container(settings)
    if found:
        health = None
        if found.running:
            health = (
                standalone.ask_vllm(url(settings))
                if settings.vllm_alone
                else ask_health(url(settings), timeout=TIMEOUT)
            )
        return ForeignServer(str(found), health, "make down", "make restart", "make logs", found)
    holder = listener(settings.host, settings.port)
    health = heard(url(settings), timeout=TIMEOUT) if holder else None
    if health is None or health.status == UNRESPONSIVE:  # another program, as far as one can tell
        return None
    if name := unit(holder):
        who, do = f"{name} of systemd", f"sudo systemctl {{}} {name}"
        return ForeignServer(who, health, do.format("stop"), do.format("restart"), f"journalctl --unit {name}")
    pids = " ".join(PID.findall(holder))
    end = f"kill {pids} drains it" if pids else "end it where it was started"
    return ForeignServer(f"{holder}, which `invoke start` did not start", health, end, end, "its output has its log")


def refuse(settings: Settings, task: str) -> None:
    """Raises KitError where `invoke start`, `stop`, `restart` or `logs` is not for what runs on the settings' port, and
    names what is."""
    found = find(settings)
    if found and (found.health or found.state == "restarting"):
        do = {"restart": found.restart, "logs": found.logs}.get(task, found.stop)
        raise KitError(f"invoke {task}", f"the server on port {settings.port} is {found.who}", do)


def container(settings: Settings) -> ComposeContainer | None:
    """The container of `make up` for the settings' port, running or not; None where there is none, or Docker does not
    tell."""
    with contextlib.suppress(KitError):
        return next(iter(containers(settings, SERVICE, timeout=DOCKER_TIMEOUT)), None)
    return None


def unit(holder: str) -> str:
    """The kit's unit of systemd that a process of `listener` belongs to; empty if to none. A process of another
    user has no pid there: then it is the only unit that runs."""
    named = [Path("/proc", pid, "cgroup") for pid in PID.findall(holder)]
    found: set[str] = set()
    for path in named or Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):  # ended meanwhile
            found.update(UNIT.findall(path.read_text(encoding="utf-8")))
    return found.pop() if len(found) == 1 else ""
