"""`invoke start`: a server that is detached from whoever started it, once on each port."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.files import make_private
from runtime.host import npu_host
from runtime.host.local_client import ask_health
from runtime.host.processes import check_handles, ended, listener
from runtime.ops.process import elsewhere, record
from runtime.ops.process.logs import tail
from runtime.ops.process.record import Place, Record
from runtime.ops.process.stop import end
from runtime.ops.process.supervisor import Order
from runtime.restart_policy import USUAL, Policy, forget, times
from runtime.urls import in_url, url

SERVE = (sys.executable, "-m", "invoke", "serve")
EVERY = 0.25  # seconds between two looks
TAIL = 25  # lines of the log that are shown of a server that ended


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
    spot = record.place(settings)
    mine = False
    check_handles()
    npu_host.check_demo(settings)
    try:
        with record.opened_lock(spot) as lock:
            mine = record.take(lock)
            if mine:
                _check_port(settings)
                forget(spot.losses)
                order = Order(
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
    holder = listener(settings.host, settings.port).output
    if holder:
        subject, advice = (
            in_url(settings.host, settings.port),
            "set ASR_PORT to a free port, or end what holds it",
        )
        raise KitError(subject, f"is held by {holder}, which `invoke start` did not start", advice)


def _detach(settings: Settings, spot: Place, order: Order) -> None:
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


def _await_ready(spot: Place, *, already: bool, on_stage: Callable[[str], None], restarts: int) -> Started:
    service = record.settled(spot)
    process, last = service.process, service.record
    if process and last and process != last.supervisor:
        reason = f"still ends, pid {process.pid}, with no supervisor"
        raise KitError(f"the server on {last.url}", reason, "invoke stop waits for it, then invoke start")
    over = process is None
    while process and last and not over:
        health = ask_health(last.url)
        last = Record.read(spot.record) or last
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
    ending = Record.read(spot.record)
    reason = (ending.reason if ending else "") or "was ended from outside"
    lines = _tail(spot.log, ending.log_start if ending else 0)
    raise NotStartedError("server", f"is not ready: {reason}; the end of its log, {spot.log}:\n{lines}")


def _tail(log: Path, begin: int) -> str:
    return "\n".join(tail(log, TAIL, start=begin))
