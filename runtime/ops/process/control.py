"""`invoke start` and `invoke stop`: start the server under its supervisor, drain it, or end it at once."""

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
from runtime.host.processes import ProcessHandle, await_exit, check_pidfd, find_listener
from runtime.ops.process import foreign, state
from runtime.ops.process.state import DrainSummary, ServiceRecord, StateFiles
from runtime.ops.process.status import tail
from runtime.ops.process.supervisor import SupervisedCommand
from runtime.restart_policy import DEFAULT_POLICY, Policy, clear_failures, count_times
from runtime.urls import in_url, url

DRAIN_MARGIN = 5.0  # seconds that a server may take to end once it has drained for as long as it may
KILL_GRACE = 10.0  # seconds that a server may take to end at once, before it is killed

SERVE_COMMAND = (sys.executable, "-m", "invoke", "serve")
START_POLL_SECONDS = 0.25  # seconds between two health checks
SERVER_LOG_LINES = 25  # lines of the log that are shown of a server that ended


@dataclass(frozen=True)
class Stopped:
    """A server that was stopped: how many seconds that took, whether it had to be killed, and what it answered while it
    drained, if it left a summary."""

    pid: int
    seconds: float
    killed: bool
    drain_summary: DrainSummary | None = None

    def __str__(self) -> str:
        answered = f", {self.drain_summary}" if self.drain_summary else ""
        return f"{'Killed' if self.killed else 'Stopped'}: pid {self.pid}, after {self.seconds:.1f} s{answered}"


def stop(
    settings: Settings, *, now: bool = False, margin: float = DRAIN_MARGIN, grace: float = KILL_GRACE
) -> Stopped | None:
    """Stop the server on the settings' port and wait until it has ended; None if none runs.

    The server answers what it has accepted (SIGTERM). With `now` it breaks that off (SIGINT), and is killed if it has
    not ended `grace` seconds later. Raises KitError if it still drains `margin` seconds after it should have ended, or
    if it is not certain which process it is.
    """
    return stop_processes(
        state.state_files(settings), now=now, drain_timeout=settings.drain_seconds + margin, grace=grace
    )


def stop_processes(files: StateFiles, *, now: bool, drain_timeout: float, grace: float = KILL_GRACE) -> Stopped | None:
    """Stop the server of these files, as `stop` does. It may drain for `drain_timeout` seconds."""
    port_state = state.await_settled(files)
    process, record = port_state.process, port_state.record
    if process is None or record is None:
        return None
    server = record.server or process
    begun = time.monotonic()
    if _signal(process, signal.SIGINT if now else signal.SIGTERM, grace if now else drain_timeout):
        return Stopped(server.pid, time.monotonic() - begun, False, DrainSummary.read(files.drain_summary, server))
    if not now:
        reason = f"has not ended after {drain_timeout:.0f} s; it goes on answering what it has accepted"
        raise KitError(f"server, pid {server.pid}", reason, "invoke stop waits on, invoke stop --now breaks it off")
    _kill(files, process)
    return Stopped(server.pid, time.monotonic() - begun, True)


def _kill(files: StateFiles, process: ProcessHandle) -> None:
    """Kill the server, which ends its supervisor, too; kill the supervisor if it does not end."""
    latest = state.read_state(files).record
    if latest and latest.server:
        _signal(latest.server, signal.SIGKILL, KILL_GRACE)
    with process.handle() as handle:
        has_ended = handle is None or await_exit(handle, KILL_GRACE)
    if not has_ended and not _signal(process, signal.SIGKILL, KILL_GRACE):
        reason = "was killed and does not end: the kernel waits for a device or a file system"
        raise KitError(f"pid {process.pid}", reason, "npu-smi info and dmesg may tell of which")


def _signal(process: ProcessHandle, number: signal.Signals, seconds: float) -> bool:
    """Send a signal and wait at most `seconds` for the process to end; returns whether it has."""
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
        return await_exit(handle, seconds)


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
    command: Sequence[str] = SERVE_COMMAND,
    policy: Policy = DEFAULT_POLICY,
) -> Started:
    """Start a server on the settings' port and wait until it is ready; only wait if one runs already. `on_stage` is
    called with the stage of the start.

    Raises NotStartedError with the end of the log if the server ends before it is ready, or is stopped after as many
    restarts as `policy` allows; KitError if it cannot be started at all: another program has the port, a file cannot be
    written, or the demo model would run unasked on an NPU host. On Ctrl-C a server that this call started is stopped.
    """
    files = state.state_files(settings)
    started_here = False
    check_pidfd()
    npu_host.check_demo(settings)
    try:
        with state.open_lock(files) as lock:
            started_here = state.try_lock(lock)
            if started_here:
                _check_port(settings)
                clear_failures(files.engine_failures)
                spec = SupervisedCommand(
                    command=tuple(command),
                    lock=lock,
                    record=str(files.record),
                    log=str(files.log),
                    url=url(settings),
                    log_format=settings.log_format,
                    log_bytes=settings.log_max_mib << 20,
                    log_files=settings.log_files,
                    policy=policy,
                )
                _detach(settings, files, spec)
        return _await_ready(files, already=not started_here, on_stage=on_stage, restarts=policy.restarts)
    except KeyboardInterrupt:
        if not started_here:
            raise StartInterruptedError("start", "interrupted; the server was there before, and goes on") from None
        stop_processes(files, now=True, drain_timeout=0)
        raise StartInterruptedError("start", "interrupted; the server was stopped before it was ready") from None


def _check_port(settings: Settings) -> None:
    """Raises KitError if another program listens on the port, or a server runs there that `start` did not start."""
    foreign.check_not_foreign(settings, "start")
    holder = find_listener(settings.host, settings.port)
    if holder:
        reason = f"is held by {holder}, which `invoke start` did not start"
        advice = "set ASR_PORT to a free port, or end what holds it"
        raise KitError(in_url(settings.host, settings.port), reason, advice)


def _detach(settings: Settings, files: StateFiles, spec: SupervisedCommand) -> None:
    """Start the supervisor in a session of its own. Returns when it has recorded itself, or raises NotStartedError if
    it ended before."""
    try:
        make_private(files.log.parent)
        log = os.fdopen(os.open(files.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    except OSError as error:
        advice = "set ASR_OUT_DIR to a directory that can be written"
        raise KitError(str(files.log), f"cannot be written: {error.strerror}", advice) from None
    with log:
        begin = log.tell()
        # Its output is a pipe that stays open until it has recorded itself; then it goes on with the log alone.
        done = subprocess.run(
            [sys.executable, "-m", "runtime.ops.process.supervisor", spec.text()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=PROJECT,
            env={**os.environ, "ASR_HOST": settings.host, "ASR_PORT": str(settings.port), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            pass_fds=(spec.lock,),
            check=False,
        )
    if done.returncode:
        raise NotStartedError("server", f"could not be detached; the end of its log:\n{_tail(files.log, begin)}")


def _await_ready(files: StateFiles, *, already: bool, on_stage: Callable[[str], None], restarts: int) -> Started:
    service = state.await_settled(files)
    process, last = service.process, service.record
    if process and last and process != last.supervisor:
        reason = f"still ends, pid {process.pid}, with no supervisor"
        raise KitError(f"the server on {last.url}", reason, "invoke stop waits for it, then invoke start")
    has_ended = process is None
    while process and last and not has_ended:
        health = ask_health(last.url)
        last = ServiceRecord.read(files.record) or last
        if health.status == "ready" and last.server and last.phase == "running":
            return Started(last.url, last.server.pid, last.log, already)
        if not already and last.restarts > restarts:  # without this limit a device's fault would be retried for ever
            stop_processes(files, now=True, drain_timeout=0)
            lines = _tail(files.log, last.log_start)
            reason = f"is not ready, and was started again {count_times(restarts)}: {last.reason}"
            raise NotStartedError("server", f"{reason}; the end of its log, {files.log}:\n{lines}")
        on_stage(last.reason if last.phase == "pausing" else health.stage)
        with process.handle() as handle:
            has_ended = handle is None or await_exit(handle, START_POLL_SECONDS)
    ending = ServiceRecord.read(files.record)
    reason = (ending.reason if ending else "") or "was ended from outside"
    lines = _tail(files.log, ending.log_start if ending else 0)
    raise NotStartedError("server", f"is not ready: {reason}; the end of its log, {files.log}:\n{lines}")


def _tail(log: Path, begin: int) -> str:
    return "\n".join(tail(log, SERVER_LOG_LINES, start=begin))
