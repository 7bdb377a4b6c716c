"""`invoke stop`: drain the server, or end it at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.files import make_private
from runtime.host import npu_host
from runtime.host.local_client import ask_health
from runtime.host.processes import ProcessHandle, check_handles, ended, listener
from runtime.ops.process import elsewhere, state
from runtime.ops.process.state import DrainSummary, ServiceRecord, StateFiles
from runtime.ops.process.status import tail
from runtime.ops.process.supervisor import SupervisedCommand
from runtime.restart_policy import USUAL, Policy, forget, times
from runtime.urls import in_url, url

MARGIN = 5.0  # seconds that a server may take to end once it has drained for as long as it may
GRACE = 10.0  # seconds that a server may take to end at once, before it is killed

SERVE = (sys.executable, "-m", "invoke", "serve")
EVERY = 0.25  # seconds between two looks
TAIL = 25  # lines of the log that are shown of a server that ended


@dataclass(frozen=True)
class Stopped:
    """A server that was stopped: how long it took, in seconds, whether it had to be killed, and its last words, None
    where it had none."""

    pid: int
    seconds: float
    killed: bool
    farewell: DrainSummary | None = None

    def __str__(self) -> str:
        words = f", {self.farewell}" if self.farewell else ""
        return f"{'Killed' if self.killed else 'Stopped'}: pid {self.pid}, after {self.seconds:.1f} s{words}"


def stop(settings: Settings, *, now: bool = False, margin: float = MARGIN, grace: float = GRACE) -> Stopped | None:
    """Stop the server on the settings' port and wait until it has ended; None where there is none.

    It answers what it has accepted (SIGTERM), or with `now` breaks that off (SIGINT), and is killed where it has not
    ended `grace` seconds later. Raises KitError where it still drains `margin` seconds after it should have ended, or
    where it is not certain which process it is.
    """
    return end(state.place(settings), now=now, patience=settings.drain_seconds + margin, grace=grace)


def end(spot: StateFiles, *, now: bool, patience: float, grace: float = GRACE) -> Stopped | None:
    """`stop`, for the files of a port. `patience` is how long it may drain, in seconds."""
    found = state.settled(spot)
    process = found.process
    if process is None or found.record is None:
        return None
    server = found.record.server or process
    begun = time.monotonic()
    if _signal(process, signal.SIGINT if now else signal.SIGTERM, grace if now else patience):
        return Stopped(server.pid, time.monotonic() - begun, False, DrainSummary.read(spot.farewell, server))
    if not now:
        reason = f"has not ended after {patience:.0f} s; it goes on answering what it has accepted"
        raise KitError(f"server, pid {server.pid}", reason, "invoke stop waits on, invoke stop --now breaks it off")
    _kill(spot, process)
    return Stopped(server.pid, time.monotonic() - begun, True)


def _kill(spot: StateFiles, process: ProcessHandle) -> None:
    """Kill the server, upon which its supervisor ends; and that too if it does not."""
    latest = state.look(spot).record
    if latest and latest.server:
        _signal(latest.server, signal.SIGKILL, GRACE)
    with process.handle() as handle:
        over = handle is None or ended(handle, GRACE)
    if not over and not _signal(process, signal.SIGKILL, GRACE):
        reason = "was killed and does not end: the kernel waits for a device or a file system"
        raise KitError(f"pid {process.pid}", reason, "npu-smi info and dmesg may tell of which")


def _signal(process: ProcessHandle, number: signal.Signals, seconds: float) -> bool:
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


class NotStartedError(KitError):
    """A server that ended before it was ready."""


class StartInterruptedError(KitError):
    """Ctrl-C while the server was getting ready."""

    exit_code = 130


@dataclass(frozen=True)
class Started:
    """A server that is ready; `already` where it was started before."""

    url: str
    pid: int
    log: Path
    already: bool


def start(
    settings: Settings,
    *,
    on_stage: Callable[[str], None],
    command: Sequence[str] = SERVE,
    policy: Policy = USUAL,
) -> Started:
    """Have a server run on the settings' port and be ready; one that runs already is only waited for. `on_stage` hears
    how far it is.

    Raises NotStartedError with the end of the log where the server ends before it is ready, or is ended because it was
    started again as often as `policy` allows; KitError where it cannot be started at all: the port is another's, a file
    cannot be written, nobody asked for the demo model on an NPU host. On Ctrl-C a server that this call started is
    ended.
    """
    spot = state.place(settings)
    mine = False
    check_handles()
    npu_host.check_demo(settings)
    try:
        with state.opened_lock(spot) as lock:
            mine = state.take(lock)
            if mine:
                _check_port(settings)
                forget(spot.losses)
                order = SupervisedCommand(
                    command=tuple(command),
                    lock=lock,
                    record=str(spot.record),
                    log=str(spot.log),
                    url=url(settings),
                    form=settings.log_format,
                    log_bytes=settings.log_max_mib << 20,
                    log_files=settings.log_files,
                    policy=policy,
                )
                _detach(settings, spot, order)
        return _await_ready(spot, already=not mine, on_stage=on_stage, restarts=policy.restarts)
    except KeyboardInterrupt:
        if not mine:
            raise StartInterruptedError("start", "interrupted; the server was there before, and goes on") from None
        end(spot, now=True, patience=0)
        raise StartInterruptedError("start", "interrupted; the server was stopped before it was ready") from None


def _check_port(settings: Settings) -> None:
    """Raises KitError where another program listens on the port, or another server is to."""
    elsewhere.refuse(settings, "start")
    holder = listener(settings.host, settings.port)
    if holder:
        subject, advice = (
            in_url(settings.host, settings.port),
            "set ASR_PORT to a free port, or end what holds it",
        )
        raise KitError(subject, f"is held by {holder}, which `invoke start` did not start", advice)


def _detach(settings: Settings, spot: StateFiles, order: SupervisedCommand) -> None:
    """Start the supervisor in a session of its own. Returns when it is on record, or has ended."""
    try:
        make_private(spot.log.parent)
        log = os.fdopen(os.open(spot.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    except OSError as error:
        advice = "set ASR_OUT_DIR to a directory that can be written"
        raise KitError(str(spot.log), f"cannot be written: {error.strerror}", advice) from None
    with log:
        begin = log.tell()
        # Its output is a pipe that stays open until it is on record; then it goes on with the log alone.
        done = subprocess.run(
            [sys.executable, "-m", "runtime.ops.process.supervisor", order.text()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=PROJECT,
            env={**os.environ, "ASR_HOST": settings.host, "ASR_PORT": str(settings.port), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            pass_fds=(order.lock,),
            check=False,
        )
    if done.returncode:
        raise NotStartedError("server", f"could not be detached; the end of its log:\n{_tail(spot.log, begin)}")


def _await_ready(spot: StateFiles, *, already: bool, on_stage: Callable[[str], None], restarts: int) -> Started:
    service = state.settled(spot)
    process, last = service.process, service.record
    if process and last and process != last.supervisor:
        reason = f"still ends, pid {process.pid}, with no supervisor"
        raise KitError(f"the server on {last.url}", reason, "invoke stop waits for it, then invoke start")
    over = process is None
    while process and last and not over:
        health = ask_health(last.url)
        last = ServiceRecord.read(spot.record) or last
        if health.status == "ready" and last.server and last.phase == "running":
            return Started(last.url, last.server.pid, last.log, already)
        if not already and last.restarts > restarts:  # a device that is at fault is tried on and on, but not for nobody
            end(spot, now=True, patience=0)
            lines = _tail(spot.log, last.log_start)
            reason = f"is not ready, and was started again {times(restarts)}: {last.reason}"
            raise NotStartedError("server", f"{reason}; the end of its log, {spot.log}:\n{lines}")
        on_stage(last.reason if last.phase == "pausing" else health.stage)
        with process.handle() as handle:
            over = handle is None or ended(handle, EVERY)
    ending = ServiceRecord.read(spot.record)
    reason = (ending.reason if ending else "") or "was ended from outside"
    lines = _tail(spot.log, ending.log_start if ending else 0)
    raise NotStartedError("server", f"is not ready: {reason}; the end of its log, {spot.log}:\n{lines}")


def _tail(log: Path, begin: int) -> str:
    return "\n".join(tail(log, TAIL, start=begin))
