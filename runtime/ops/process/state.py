"""The state of a port's server on disk: the lock that says whether one runs, and the file that says which it is."""

import contextlib
import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from env.errors import KitError
from env.settings import Settings
from env.sources import under_project
from runtime.files import make_private, write_whole
from runtime.host.processes import ProcessHandle

FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid
SETTLE_TIMEOUT = 5.0  # seconds that a start may take to put its processes on record
SETTLE_POLL_SECONDS = 0.05  # seconds between two reads of the record

Phase = Literal["running", "pausing", "stopping", "stopped", "failed"]


@dataclass(frozen=True)
class StateFiles:
    """The files of the server on one port. `engine_failures` and `drain_summary` are what a server leaves for the next
    one and for `invoke stop`."""

    lock: Path
    record: Path
    log: Path
    drain_summary: Path
    engine_failures: Path


@dataclass(frozen=True)
class ServiceRecord:
    """The service as its supervisor last recorded it. Its lines begin at byte `log_start` of the log; `restarts` counts
    restarts after crashes; `reason` says why the server ended last; `server` is None while none runs."""

    url: str
    log: Path
    log_start: int
    supervisor: ProcessHandle
    server: ProcessHandle | None = None
    phase: Phase = "running"
    restarts: int = 0
    reason: str = ""

    def write(self, path: Path) -> None:
        """Write it as JSON. Raises KitError if it cannot be written."""
        write_whole(path, json.dumps({**asdict(self), "log": str(self.log)}, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "ServiceRecord | None":
        """The record at `path`; None if it is missing or damaged."""
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            known = cls(**{**found, "log": Path(found["log"]), "supervisor": ProcessHandle(**found["supervisor"])})
            return replace(known, server=ProcessHandle(**found["server"])) if found["server"] else known
        except (OSError, ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True)
class PortState:
    """The state of a port. `locked` says whether a server's processes live; `record` may be an earlier server's.
    `process` is the one to signal and to wait for: the supervisor, or a server that outlives it. None if there is none,
    or it is not known for certain."""

    locked: bool
    record: ServiceRecord | None
    process: ProcessHandle | None


def state_files(settings: Settings) -> StateFiles:
    """The files of the server on the settings' port."""
    out, name = under_project(settings.out_dir), f"server-{settings.port}"
    run, log = out / "run", out / "logs" / f"{name}.log"
    return StateFiles(
        lock=run / f"{name}.lock",
        record=run / f"{name}.json",
        log=log,
        drain_summary=run / f"{name}.farewell.json",
        engine_failures=run / f"{name}.losses.json",
    )


def invoke_advice(settings: Settings) -> str:
    """What to type if a make target finds no container because `invoke start` runs the server on this port; empty if
    it does not."""
    runs = is_locked(state_files(settings).lock)
    return "invoke start runs the server here: invoke status, invoke logs, invoke stop" if runs else ""


def read_state(files: StateFiles) -> PortState:
    """The state of a port now."""
    locked, record = is_locked(files.lock), ServiceRecord.read(files.record)
    candidates = (record.supervisor, record.server) if locked and record else ()
    return PortState(locked, record, next((process for process in candidates if process and process.alive), None))


def await_settled(files: StateFiles) -> PortState:
    """The state of a port, once a start that has just taken the lock has recorded its processes.

    Raises KitError if that does not happen in time: then the lock is held by a process that is not on record.
    """
    until = time.monotonic() + SETTLE_TIMEOUT
    while (state := read_state(files)).locked and state.process is None:
        if time.monotonic() > until:
            reason = "is held, but not by a process that is on record; nothing was signalled"
            raise KitError(str(files.lock), reason, f"fuser -v {files.lock} shows who holds it")
        time.sleep(SETTLE_POLL_SECONDS)
    return state


@contextmanager
def open_lock(files: StateFiles) -> Iterator[int]:
    """A descriptor of the lock's file. Raises KitError if it cannot be created."""
    try:
        make_private(files.lock.parent)
        descriptor = os.open(files.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        advice = "set ASR_OUT_DIR to a directory that can be written"
        raise KitError(str(files.lock), f"cannot be written: {error.strerror}", advice) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take the lock; False if another process has it. Processes that inherit the descriptor share the lock, which lasts
    until the last of them has ended."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    except OSError as error:
        raise KitError("the lock in ASR_OUT_DIR", f"cannot be taken: {error.strerror}") from None
    return True


def is_locked(path: Path) -> bool:
    """Whether any process has the lock. It is only queried: taking it, however briefly, could make a start believe that
    another server runs."""
    try:
        with path.open("rb") as file:
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer: bytes = fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked)
    except OSError:
        return False
    return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)


@dataclass(frozen=True)
class DrainSummary:
    """How many requests were answered while the server drained, and how many were refused because it ended."""

    answered: int = 0
    given_up: int = 0

    def __str__(self) -> str:
        return f"{count_requests(self.answered)} answered" + (f", {self.given_up} given up" if self.given_up else "")

    def write(self, path: Path, server: ProcessHandle) -> None:
        """Write it for `server`. Raises KitError if it cannot be written."""
        write_whole(path, json.dumps({"server": asdict(server), **asdict(self)}) + "\n")

    @classmethod
    def read(cls, path: Path, server: ProcessHandle) -> "DrainSummary | None":
        """The summary that `server` left; None if it left none, or the file is damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if ProcessHandle(**found.pop("server")) == server:
                return cls(**found)
        return None


def count_requests(count: int) -> str:
    """A count in words: `1 request`, `2 requests`."""
    return f"{count} request{'' if count == 1 else 's'}"
