"""`invoke status`: what there is to know of a server without entering it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from env.errors import KitError
from env.settings import Settings
from runtime.host import local_client
from runtime.host.local_client import UNRESPONSIVE, Health, ask_health
from runtime.host.processes import listener
from runtime.ops.process import elsewhere, record
from runtime.ops.process.elsewhere import Elsewhere
from runtime.ops.process.logs import last_errors
from runtime.ops.process.record import Record
from runtime.urls import url

ERRORS = 5  # lines
TIMEOUT = 2.0  # seconds to say whether it is ready: with Python's own start, a status takes 5 at most
DETAILS_TIMEOUT = 2.0  # seconds for what it tells operators, which is asked only of one that answers
NOT_RUNNING = 3  # exit code, as LSB has it for `status`


@dataclass(frozen=True)
class Status:
    """A server on a port. `state` is ready, starting, draining, restarting, unresponsive (its process lives, and does
    not answer), unknown (its lock is held by others than are on record), stopped, failed, or absent. `uptime` is in
    seconds, `memory` resident bytes; both None without a process. `reason` is why it ended last, or what holds the port
    instead. `told` is what the server tells operators, see /admin/status; empty where it does not. Where `invoke start`
    did not start it, `manager` is what did, and `commands` is what to type."""

    state: str
    url: str
    log: str
    stage: str = ""
    pid: int | None = None
    supervisor: int | None = None
    uptime: float | None = None
    memory: int | None = None
    restarts: int = 0
    reason: str = ""
    errors: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    manager: str = ""
    commands: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if it is ready, 3 if there is none, 1 if there is one that is not ready."""
        if self.state == "ready":
            return 0
        return NOT_RUNNING if self.state in ("stopped", "failed", "absent") else 1

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "state": self.state,
            "ready": self.state == "ready",
            "stage": self.stage,
            "url": self.url,
            "pid": self.pid,
            "supervisor_pid": self.supervisor,
            "uptime_seconds": self.uptime,
            "memory_bytes": self.memory,
            "engine": self.told.get("engine"),
            "device": self.told.get("device"),
            "queue": self.told.get("queue"),
            "restarts": self.restarts,
            "engine_restarts": self.told.get("engine_restarts"),
            "reason": self.reason,
            "log": self.log,
            "last_errors": list(self.errors),
            "managed_by": self.manager,
            "commands": list(self.commands),
        }


def status(settings: Settings) -> Status:
    """The state of the server on the settings' port."""
    spot = record.place(settings)
    found = record.look(spot)
    log, last = str(spot.log), found.record
    if not found.held:
        return _ended(settings, log, last)
    if last is None or found.process is None:
        return Status("unknown", url(settings), log, reason=f"{spot.lock} is held, by no process that is on record")
    errors = tuple(last_errors(last.log, ERRORS, start=last.log_start))
    server = last.server if last.server and last.server.alive else None
    health = ask_health(last.url, timeout=TIMEOUT) if server else Health(stage="")
    stage = health.stage
    if server and server.suspended:
        stage = f"{stage}: its process is suspended (SIGSTOP) → kill -CONT {server.pid}"
    return Status(
        state=_state(last, health),
        url=last.url,
        log=log,
        stage=stage,
        pid=server.pid if server else None,
        supervisor=last.supervisor.pid if last.supervisor.alive else None,
        uptime=round(server.uptime, 1) if server else None,
        memory=server.memory if server else None,
        restarts=last.restarts,
        reason=last.reason,
        errors=errors,
        told=_told(settings) if server and health.status != UNRESPONSIVE else {},
    )


def _state(last: Record, health: Health) -> str:
    if not last.supervisor.alive or last.phase == "stopping":
        return "draining"
    return "restarting" if last.phase == "pausing" else health.status


def _told(settings: Settings) -> dict[str, Any]:
    """What the server tells operators; nothing where it takes us for none."""
    try:
        return local_client.call(settings, "GET", "/admin/status", timeout=DETAILS_TIMEOUT) or {}
    except KitError:
        return {}


def _ended(settings: Settings, log: str, last: Record | None) -> Status:
    """Where `invoke start` has no server running: the one that runs all the same, or how the last one ended and what
    else has the port."""
    if found := elsewhere.find(settings):
        return _elsewhere(settings, found)
    holder = listener(settings.host, settings.port).output
    held = f"the port is held by {holder}, which `invoke start` did not start" if holder else ""
    if last is None:
        return Status("absent", url(settings), log, reason=held)
    state = last.phase if last.phase in ("stopped", "failed") else "failed"
    reason = last.reason if state == last.phase else "its supervisor was killed, or the machine went down"
    errors = tuple(last_errors(last.log, ERRORS, start=last.log_start)) if state == "failed" else ()
    return Status(
        state, last.url, log, restarts=last.restarts, reason="; ".join(filter(None, (reason, held))), errors=errors
    )


def _elsewhere(settings: Settings, found: Elsewhere) -> Status:
    """The status of a server that `invoke start` did not start."""
    told = _told(settings) if found.health and found.health.status != UNRESPONSIVE else {}
    return Status(
        state=found.state,
        url=url(settings),
        log="",
        stage=found.health.stage if found.health else "",
        uptime=told.get("uptime_seconds"),
        told=told,
        manager=found.who,
        commands=tuple(dict.fromkeys((found.logs, found.restart, found.stop))),
    )
