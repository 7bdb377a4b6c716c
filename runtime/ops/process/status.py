"""`invoke status` and `invoke logs`: the state of a server, and the end of its log."""

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
from runtime.host.processes import ProcessHandle, await_exit, find_listener
from runtime.ops.process import foreign
from runtime.ops.process.foreign import ForeignServer
from runtime.ops.process.state import ServiceRecord, count_requests, read_state, state_files
from runtime.urls import url

LOG_END_BYTES = 4 << 20  # of a log's end that are read
FOLLOW_POLL_SECONDS = 0.25  # seconds between two reads of a log that is followed
ERROR_PATTERN = re.compile(r"\b(\w*error|critical|fatal|crashed|failed|traceback)\b", re.IGNORECASE)

SHOWN_ERRORS = 5  # lines of the log
STATUS_TIMEOUT = 2.0  # seconds for a health check: with Python's own start, a status takes 5 at most
DETAILS_TIMEOUT = 2.0  # seconds for /admin/status, which is asked only of a server that answers
NOT_RUNNING = 3  # exit code, as LSB has it for `status`


def tail(log: Path, lines: int, *, start: int = 0) -> list[str]:
    """The last lines of a log, not before byte `start`. Raises KitError if it cannot be read."""
    return _last(_end(log, start)[0].split(b"\n"), lines)


def last_errors(log: Path, lines: int, *, start: int = 0) -> list[str]:
    """The last lines that look like errors; none if the log cannot be read."""
    try:
        return [line for line in tail(log, LOG_END_BYTES, start=start) if ERROR_PATTERN.search(line)][-lines:]
    except KitError:
        return []


def follow(log: Path, process: ProcessHandle | None, lines: int) -> Iterator[str]:
    """The last lines, then each line added until `process` ends. Raises KitError if the log cannot be read."""
    if process is None:
        yield from tail(log, lines)
        return
    data, position = _end(log, 0)
    *whole, rest = data.split(b"\n")
    yield from _last(whole, lines)
    last = b"".join(whole[-1:])
    with process.handle() as handle, log.open("rb") as file:
        has_ended = False
        while not has_ended:
            has_ended = handle is None or await_exit(handle, FOLLOW_POLL_SECONDS)
            rotated = log.stat().st_size < position  # emptied, as by logrotate's copytruncate, or cut
            if rotated:
                position, rest = 0, b""
            file.seek(position)
            added = file.read()
            position += len(added)
            if rotated and last:
                _, found, behind = (b"\n" + added.lstrip(b" ")).partition(b"\n" + last + b"\n")
                added = behind if found else added  # a log that is cut still has lines that were shown
            *whole, rest = (rest + added).split(b"\n")
            last = b"".join(whole[-1:]) or last
            yield from (_text(line) for line in whole)
        if rest:
            yield _text(rest)


def _end(log: Path, start: int) -> tuple[bytes, int]:
    """The end of a log, from byte `start` on but at most LOG_END_BYTES, and the log's size."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            begin = max(start if start <= size else 0, size - LOG_END_BYTES)
            file.seek(begin)
            data = file.read(size - begin)
            return data if begin else data.lstrip(b" "), size  # a log that is cut begins with blanks
    except FileNotFoundError:
        raise KitError(str(log), "is not there: no server was started on this port", "invoke start") from None
    except OSError as error:
        raise KitError(str(log), f"cannot be read: {error.strerror}") from None


def _last(lines: list[bytes], most: int) -> list[str]:
    """The last `most` lines; the empty one behind the last newline does not count."""
    whole = lines if lines[-1:] != [b""] else lines[:-1]
    return [_text(line) for line in whole[-most:]] if most > 0 else []


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r")


@dataclass(frozen=True)
class ServerStatus:
    """A server on a port. `state` is ready, starting, draining, restarting, unresponsive (its process lives, but does
    not answer), unknown (its lock is held by a process that is not on record), stopped, failed, or absent. `uptime` is
    in seconds, `memory` in resident bytes; both are None without a process. `reason` is why it ended last, or what has
    the port instead. `details` is its answer to /admin/status; empty if it gives none. If `invoke start` did not start
    it, `manager` says what did, and `commands` what to type."""

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
    details: Mapping[str, Any] = field(default_factory=dict)
    manager: str = ""
    commands: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if it is ready, 3 if there is none, 1 if there is one that is not ready."""
        if self.state == "ready":
            return 0
        return NOT_RUNNING if self.state in ("stopped", "failed", "absent") else 1

    def document(self) -> dict[str, Any]:
        """The status as a JSON object."""
        return {
            "state": self.state,
            "ready": self.state == "ready",
            "stage": self.stage,
            "url": self.url,
            "pid": self.pid,
            "supervisor_pid": self.supervisor,
            "uptime_seconds": self.uptime,
            "memory_bytes": self.memory,
            "engine": self.details.get("engine"),
            "device": self.details.get("device"),
            "queue": self.details.get("queue"),
            "restarts": self.restarts,
            "engine_restarts": self.details.get("engine_restarts"),
            "reason": self.reason,
            "log": self.log,
            "last_errors": list(self.errors),
            "managed_by": self.manager,
            "commands": list(self.commands),
        }


def status(settings: Settings) -> ServerStatus:
    """The state of the server on the settings' port."""
    files = state_files(settings)
    port_state = read_state(files)
    log, last = str(files.log), port_state.record
    if not port_state.locked:
        return _absent_status(settings, log, last)
    if last is None or port_state.process is None:
        return ServerStatus(
            "unknown", url(settings), log, reason=f"{files.lock} is held, by no process that is on record"
        )
    errors = tuple(last_errors(last.log, SHOWN_ERRORS, start=last.log_start))
    server = last.server if last.server and last.server.alive else None
    health = ask_health(last.url, timeout=STATUS_TIMEOUT) if server else Health(stage="")
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
        details=_server_details(settings) if server and health.status != UNRESPONSIVE else {},
    )


def _state(last: ServiceRecord, health: Health) -> str:
    if not last.supervisor.alive or last.phase == "stopping":
        return "draining"
    return "restarting" if last.phase == "pausing" else health.status


def _server_details(settings: Settings) -> dict[str, Any]:
    """The server's answer to /admin/status; empty if it refuses or does not answer."""
    try:
        return local_client.call_server(settings, "GET", "/admin/status", timeout=DETAILS_TIMEOUT) or {}
    except KitError:
        return {}


def _absent_status(settings: Settings, log: str, last: ServiceRecord | None) -> ServerStatus:
    """The status if `invoke start` runs no server: that of one started otherwise, or how the last one ended and what
    has the port."""
    if server := foreign.find_foreign(settings):
        return _foreign_status(settings, server)
    holder = find_listener(settings.host, settings.port)
    taken = f"the port is held by {holder}, which `invoke start` did not start" if holder else ""
    if last is None:
        return ServerStatus("absent", url(settings), log, reason=taken)
    state = last.phase if last.phase in ("stopped", "failed") else "failed"
    reason = last.reason if state == last.phase else "its supervisor was killed, or the machine went down"
    errors = tuple(last_errors(last.log, SHOWN_ERRORS, start=last.log_start)) if state == "failed" else ()
    return ServerStatus(
        state, last.url, log, restarts=last.restarts, reason="; ".join(filter(None, (reason, taken))), errors=errors
    )


def _foreign_status(settings: Settings, server: ForeignServer) -> ServerStatus:
    """The status of a server that `invoke start` did not start."""
    details = _server_details(settings) if server.health and server.health.status != UNRESPONSIVE else {}
    return ServerStatus(
        state=server.state,
        url=url(settings),
        log="",
        stage=server.health.stage if server.health else "",
        uptime=details.get("uptime_seconds"),
        details=details,
        manager=server.description,
        commands=tuple(dict.fromkeys((server.logs, server.restart, server.stop))),
    )


def format_status(status: ServerStatus) -> str:
    """The status in lines, a fact each; facts that are not known are left out."""
    uptime = str(timedelta(seconds=int(status.uptime))) if status.uptime is not None else ""
    memory = f"{_mib(status.memory)} resident" if status.memory else ""
    restarted = status.details.get("engine_restarts", 0)
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
        "engine": _engine(status.details.get("engine") or {}),
        "device": _device(status.details.get("device") or {}),
        "queue": _queue(status.details.get("queue") or {}),
        "restarts": ", ".join([*restarts, *([f"{restarted} of the engine alone"] if restarted else [])]),
        "log": status.log,
    }
    shown = [f"{name:<9}{text}" for name, text in facts.items() if text]
    return "\n".join([*shown, *(["last errors"] if status.errors else []), *(f"  {line}" for line in status.errors)])


def _engine(details: Mapping[str, Any]) -> str:
    """The engine's name, and on lines of their own the servers that decode for it."""
    if not details:
        return ""
    servers = [
        f"{server['name']}: {server['decoding']} being decoded"
        + (f"; {server['trouble']}" if server["trouble"] else "")
        for server in details["servers"]
    ]
    return f"\n{'':<9}".join([details["name"], *servers])


def _device(details: Mapping[str, Any]) -> str:
    if not details:
        return ""
    found, memory = f"{details['name']} ({details['description']})", details["memory"]
    if not memory:
        return found
    return f"{found}, {_mib(memory['used'])} used, {_mib(memory['reserved'])} reserved of {_mib(memory['total'])}"


def _queue(details: Mapping[str, Any]) -> str:
    if not details:
        return ""
    requests, engine = count_requests(details["requests"]), details["engine"]
    return f"{requests}; utterances: {engine['waiting']} waiting, {engine['decoding']} being decoded"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
