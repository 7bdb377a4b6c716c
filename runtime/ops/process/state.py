"""What is on record of a port's server: the lock that says whether one runs, and the file that says which it is."""

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
PATIENCE = 5.0  # seconds that a start may take to put its processes on record
EVERY = 0.05  # seconds between two looks at it

Phase = Literal["running", "pausing", "stopping", "stopped", "failed"]


@dataclass(frozen=True)
class StateFiles:
    """The files of the server on one port."""

    lock: Path
    record: Path
    log: Path
    farewell: Path
    losses: Path


@dataclass(frozen=True)
class ServiceRecord:
    """The service as its supervisor last wrote it down. `log_start` is where its lines begin in the log, in bytes;
    `restarts` counts those after crashes, `reason` says why the server ended last, `server` is None where it has."""

    url: str
    log: Path
    log_start: int
    supervisor: ProcessHandle
    server: ProcessHandle | None = None
    phase: Phase = "running"
    restarts: int = 0
    reason: str = ""

    def write(self, path: Path) -> None:
        """Raises KitError where it cannot be written."""
        write_whole(path, json.dumps({**asdict(self), "log": str(self.log)}, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "ServiceRecord | None":
        """The record at `path`; None where there is none that can be understood."""
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            known = cls(**{**found, "log": Path(found["log"]), "supervisor": ProcessHandle(**found["supervisor"])})
            return replace(known, server=ProcessHandle(**found["server"])) if found["server"] else known
        except (OSError, ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True)
class PortState:
    """What there is on a port. `held` says whether processes of a server live; `record` may be of an earlier one.
    `process` is the one to signal and to wait for: the supervisor, or a server that outlives it. None: there is none,
    or it is not known for certain."""

    held: bool
    record: ServiceRecord | None
    process: ProcessHandle | None


def place(settings: Settings) -> StateFiles:
    """Where the server on the settings' port is on record, and its log."""
    out, name = under_project(settings.out_dir), f"server-{settings.port}"
    run, log = out / "run", out / "logs" / f"{name}.log"
    farewell, losses = run / f"{name}.farewell.json", run / f"{name}.losses.json"
    return StateFiles(run / f"{name}.lock", run / f"{name}.json", log, farewell, losses)


def advice(settings: Settings) -> str:
    """What to type where a make target looked for a container, and `invoke start` has the server on this port; empty
    where it has none."""
    there = is_held(place(settings).lock)
    return "invoke start runs the server here: invoke status, invoke logs, invoke stop" if there else ""


def look(spot: StateFiles) -> PortState:
    """What there is now."""
    held, found = is_held(spot.lock), ServiceRecord.read(spot.record)
    candidates = (found.supervisor, found.server) if held and found else ()
    return PortState(held, found, next((process for process in candidates if process and process.alive), None))


def settled(spot: StateFiles) -> PortState:
    """What there is, once a start that has just taken the lock has put its processes on record.

    Raises KitError where that does not happen: then whoever holds the lock is not who is on record.
    """
    until = time.monotonic() + PATIENCE
    while (found := look(spot)).held and found.process is None:
        if time.monotonic() > until:
            reason = "is held, but not by a process that is on record; nothing was signalled"
            raise KitError(str(spot.lock), reason, f"fuser -v {spot.lock} shows who holds it")
        time.sleep(EVERY)
    return found


@contextmanager
def opened_lock(spot: StateFiles) -> Iterator[int]:
    """A descriptor of the lock's file. Raises KitError where it cannot be made."""
    try:
        make_private(spot.lock.parent)
        descriptor = os.open(spot.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        advice = "set ASR_OUT_DIR to a directory that can be written"
        raise KitError(str(spot.lock), f"cannot be written: {error.strerror}", advice) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take(descriptor: int) -> bool:
    """Take the lock; False where it is held. Every process that inherits the descriptor holds it too, until the last
    of them has ended."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    except OSError as error:
        raise KitError("the lock in ASR_OUT_DIR", f"cannot be taken: {error.strerror}") from None
    return True


def is_held(path: Path) -> bool:
    """Whether any process holds the lock. It is asked about without being taken, which would make a start believe that
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
    """How many requests were answered while the server drained, and how many were told that it ends."""

    answered: int = 0
    given_up: int = 0

    def __str__(self) -> str:
        return f"{requests(self.answered)} answered" + (f", {self.given_up} given up" if self.given_up else "")

    def write(self, path: Path, server: ProcessHandle) -> None:
        """Raises KitError where it cannot be written."""
        write_whole(path, json.dumps({"server": asdict(server), **asdict(self)}) + "\n")

    @classmethod
    def read(cls, path: Path, server: ProcessHandle) -> "DrainSummary | None":
        """What that server left; None where it left nothing that can be understood."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if ProcessHandle(**found.pop("server")) == server:
                return cls(**found)
        return None


def requests(count: int) -> str:
    """So many requests, in words."""
    return f"{count} request{'' if count == 1 else 's'}"
