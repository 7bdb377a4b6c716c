"""`invoke status`: what there is to know of a server without entering it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from env.errors import KitError
from env.settings import Settings
from runtime.host import local_client
from runtime.host.local_client import UNRESPONSIVE, Health, ask_health
from runtime.host.processes import ProcessHandle, ended, listener
from runtime.ops.process import elsewhere
from runtime.ops.process import state as record
from runtime.ops.process.elsewhere import ForeignServer
from runtime.ops.process.state import ServiceRecord, requests
from runtime.urls import url

MOST_BYTES = 4 << 20  # of a log's end that is looked at
EVERY = 0.25  # seconds between two looks at a log that is followed
ERROR = re.compile(r"\b(\w*error|critical|fatal|crashed|failed|traceback)\b", re.IGNORECASE)

ERRORS = 5  # lines
TIMEOUT = 2.0  # seconds to say whether it is ready: with Python's own start, a status takes 5 at most
DETAILS_TIMEOUT = 2.0  # seconds for what it tells operators, which is asked only of one that answers
NOT_RUNNING = 3  # exit code, as LSB has it for `status`


def tail(log: Path, lines: int, *, start: int = 0) -> list[str]:
    """The last lines of a log, of those from byte `start` on. Raises KitError where it cannot be read."""
    return _last(_end(log, start)[0].split(b"\n"), lines)


def last_errors(log: Path, lines: int, *, start: int = 0) -> list[str]:
    """The last lines that look like errors; none where the log cannot be read."""
    try:
        return [line for line in tail(log, MOST_BYTES, start=start) if ERROR.search(line)][-lines:]
    except KitError:
        return []


def follow(log: Path, process: ProcessHandle | None, lines: int) -> Iterator[str]:
    """The last lines, then each that is added until `process` ends. Raises KitError where the log cannot be read."""
    if process is None:
        yield from tail(log, lines)
        return
    data, position = _end(log, 0)
    *whole, rest = data.split(b"\n")
    yield from _last(whole, lines)
    last = b"".join(whole[-1:])
    with process.handle() as handle, log.open("rb") as file:
        over = False
        while not over:
            over = handle is None or ended(handle, EVERY)
            put_aside = log.stat().st_size < position  # and emptied, as logrotate's copytruncate does, or cut
            if put_aside:
                position, rest = 0, b""
            file.seek(position)
            added = file.read()
            position += len(added)
            if put_aside and last:
                _, found, behind = (b"\n" + added.lstrip(b" ")).partition(b"\n" + last + b"\n")
                added = behind if found else added  # a log that is cut still has lines that were shown
            *whole, rest = (rest + added).split(b"\n")
            last = b"".join(whole[-1:]) or last
            yield from (_text(line) for line in whole)
        if rest:
            yield _text(rest)


def _end(log: Path, start: int) -> tuple[bytes, int]:
    """What a log ends with, from byte `start` on where it is not too much, and its size."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            begin = max(start if start <= size else 0, size - MOST_BYTES)
            file.seek(begin)
            data = file.read(size - begin)
            return data if begin else data.lstrip(b" "), size  # a log that is cut begins with blanks
    except FileNotFoundError:
        raise KitError(str(log), "is not there: no server was started on this port", "invoke start") from None
    except OSError as error:
        raise KitError(str(log), f"cannot be read: {error.strerror}") from None


def _last(lines: list[bytes], most: int) -> list[str]:
    """The last of the lines, of which the one after the last newline is none."""
    found = lines if lines[-1:] != [b""] else lines[:-1]
    return [_text(line) for line in found[-most:]] if most > 0 else []


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r")


@dataclass(frozen=True)
class ServerStatus:
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


def status(settings: Settings) -> ServerStatus:
    """The state of the server on the settings' port."""
    spot = record.place(settings)
    found = record.look(spot)
    log, last = str(spot.log), found.record
    if not found.held:
        return _ended(settings, log, last)
    if last is None or found.process is None:
        return ServerStatus(
            "unknown", url(settings), log, reason=f"{spot.lock} is held, by no process that is on record"
        )
    errors = tuple(last_errors(last.log, ERRORS, start=last.log_start))
    server = last.server if last.server and last.server.alive else None
    health = ask_health(last.url, timeout=TIMEOUT) if server else Health(stage="")
    stage = health.stage
    if server and server.suspended:
        stage = f"{stage}: its process is suspended (SIGSTOP) → kill -CONT {server.pid}"
    return ServerStatus(
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


def _state(last: ServiceRecord, health: Health) -> str:
    if not last.supervisor.alive or last.phase == "stopping":
        return "draining"
    return "restarting" if last.phase == "pausing" else health.status


def _told(settings: Settings) -> dict[str, Any]:
    """What the server tells operators; nothing where it takes us for none."""
    try:
        return local_client.call(settings, "GET", "/admin/status", timeout=DETAILS_TIMEOUT) or {}
    except KitError:
        return {}


def _ended(settings: Settings, log: str, last: ServiceRecord | None) -> ServerStatus:
    """Where `invoke start` has no server running: the one that runs all the same, or how the last one ended and what
    else has the port."""
    if found := elsewhere.find(settings):
        return _elsewhere(settings, found)
    holder = listener(settings.host, settings.port)
    held = f"the port is held by {holder}, which `invoke start` did not start" if holder else ""
    if last is None:
        return ServerStatus("absent", url(settings), log, reason=held)
    state = last.phase if last.phase in ("stopped", "failed") else "failed"
    reason = last.reason if state == last.phase else "its supervisor was killed, or the machine went down"
    errors = tuple(last_errors(last.log, ERRORS, start=last.log_start)) if state == "failed" else ()
    return ServerStatus(
        state, last.url, log, restarts=last.restarts, reason="; ".join(filter(None, (reason, held))), errors=errors
    )


def _elsewhere(settings: Settings, found: ForeignServer) -> ServerStatus:
    """The status of a server that `invoke start` did not start."""
    told = _told(settings) if found.health and found.health.status != UNRESPONSIVE else {}
    return ServerStatus(
        state=found.state,
        url=url(settings),
        log="",
        stage=found.health.stage if found.health else "",
        uptime=told.get("uptime_seconds"),
        told=told,
        manager=found.who,
        commands=tuple(dict.fromkeys((found.logs, found.restart, found.stop))),
    )


def lines(status: ServerStatus) -> str:
    """One fact a line; those that there are."""
    uptime = str(timedelta(seconds=int(status.uptime))) if status.uptime is not None else ""
    memory = f"{_mib(status.memory)} resident" if status.memory else ""
    restarted = status.told.get("engine_restarts", 0)
    restarts = [f"{status.restarts} after crashes"] if status.restarts else []
    facts = {
        "state": status.state,
        "stage": status.stage,
        "reason": status.reason,
        "run by": status.manager,
        "to do": "; ".join(status.commands),
        "url": status.url,
        "pid": f"{status.pid or 'none'}, supervisor {status.supervisor or 'none'}" if status.supervisor else status.pid,
        "uptime": uptime,
        "memory": memory,
        "engine": _engine(status.told.get("engine") or {}),
        "device": _device(status.told.get("device") or {}),
        "queue": _queue(status.told.get("queue") or {}),
        "restarts": ", ".join([*restarts, *([f"{restarted} of the engine alone"] if restarted else [])]),
        "log": status.log,
    }
    shown = [f"{name:<9}{text}" for name, text in facts.items() if text]
    return "\n".join([*shown, *(["last errors"] if status.errors else []), *(f"  {line}" for line in status.errors)])


def _engine(told: Mapping[str, Any]) -> str:
    """Its name, and on lines of their own the servers that decode for it."""
    if not told:
        return ""
    servers = [
        f"{server['name']}: {server['decoding']} being decoded"
        + (f"; {server['trouble']}" if server["trouble"] else "")
        for server in told["servers"]
    ]
    return f"\n{'':<9}".join([told["name"], *servers])


def _device(told: Mapping[str, Any]) -> str:
    if not told:
        return ""
    found, memory = f"{told['name']} ({told['description']})", told["memory"]
    if not memory:
        return found
    return f"{found}, {_mib(memory['used'])} used, {_mib(memory['reserved'])} reserved of {_mib(memory['total'])}"


def _queue(told: Mapping[str, Any]) -> str:
    if not told:
        return ""
    engine = told["engine"]
    return f"{requests(told['requests'])}; utterances: {engine['waiting']} waiting, {engine['decoding']} being decoded"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
