"""`invoke stop`: drain the server, or end it at once."""

import signal
import time
from dataclasses import dataclass

from env.errors import KitError
from env.settings import Settings
from runtime.host.processes import Process, ended
from runtime.ops.process import record
from runtime.ops.process.farewell import Farewell
from runtime.ops.process.record import Place

MARGIN = 5.0  # seconds that a server may take to end once it has drained for as long as it may
GRACE = 10.0  # seconds that a server may take to end at once, before it is killed


@dataclass(frozen=True)
class Stopped:
    """A server that was stopped: how long it took, in seconds, whether it had to be killed, and its last words, None
    where it had none."""

    pid: int
    seconds: float
    killed: bool
    farewell: Farewell | None = None

    def __str__(self) -> str:
        words = f", {self.farewell}" if self.farewell else ""
        return f"{'Killed' if self.killed else 'Stopped'}: pid {self.pid}, after {self.seconds:.1f} s{words}"


def stop(settings: Settings, *, now: bool = False, margin: float = MARGIN, grace: float = GRACE) -> Stopped | None:
    """Stop the server on the settings' port and wait until it has ended; None where there is none.

    It answers what it has accepted (SIGTERM), or with `now` breaks that off (SIGINT), and is killed where it has not
    ended `grace` seconds later. Raises KitError where it still drains `margin` seconds after it should have ended, or
    where it is not certain which process it is.
    """
    return end(record.place(settings), now=now, patience=settings.drain_seconds + margin, grace=grace)


def end(spot: Place, *, now: bool, patience: float, grace: float = GRACE) -> Stopped | None:
    """`stop`, for the files of a port. `patience` is how long it may drain, in seconds."""
    found = record.settled(spot)
    process = found.process
    if process is None or found.record is None:
        return None
    server = found.record.server or process
    begun = time.monotonic()
    if _signal(process, signal.SIGINT if now else signal.SIGTERM, grace if now else patience):
        return Stopped(server.pid, time.monotonic() - begun, False, Farewell.read(spot.farewell, server))
    if not now:
        reason = f"has not ended after {patience:.0f} s; it goes on answering what it has accepted"
        raise KitError(f"server, pid {server.pid}", reason, "invoke stop waits on, invoke stop --now breaks it off")
    _kill(spot, process)
    return Stopped(server.pid, time.monotonic() - begun, True)


def _kill(spot: Place, process: Process) -> None:
    """Kill the server, upon which its supervisor ends; and that too if it does not."""
    latest = record.look(spot).record
    if latest and latest.server:
        _signal(latest.server, signal.SIGKILL, GRACE)
    with process.handle() as handle:
        over = handle is None or ended(handle, GRACE)
    if not over and not _signal(process, signal.SIGKILL, GRACE):
        reason = "was killed and does not end: the kernel waits for a device or a file system"
        raise KitError(f"pid {process.pid}", reason, "npu-smi info and dmesg may tell of which")


def _signal(process: Process, number: signal.Signals, seconds: float) -> bool:
    """Send a signal and wait for the end of a process, for so many seconds at most; returns whether it has ended."""
    with process.handle() as handle:
        if handle is None:
            return True
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return True
        except PermissionError:
            reason = f"pid {process.pid} is another user's"
            raise KitError("server", reason, "stop it as the user who started it, or with sudo") from None
        return ended(handle, seconds)
