"""The supervisor: a small process that runs the server, and starts it again after a crash.

It waits for signals, and looks now and then whether the log is large. SIGTERM and SIGINT are handed on to the server,
and end the supervisor with it. SIGHUP is handed on too, and ends neither: the server reads keys and its certificate
again. Where the supervisor itself is killed, the kernel sends the server SIGTERM.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from env.errors import KitError
from runtime.host.processes import ProcessHandle, describe_exit
from runtime.ops.process.state import Phase, ServiceRecord
from runtime.restart_policy import USUAL, Crashes, Policy

COLLAPSE_RANGE = 8  # FALLOC_FL_COLLAPSE_RANGE, see fallocate(2)
LIBC = ctypes.CDLL(None)

PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
STOPS = {signal.SIGTERM, signal.SIGINT}
SIGNALS = STOPS | {signal.SIGHUP, signal.SIGCHLD}
REFUSALS = (1, 2)  # exit codes of a server that cannot start as it is set up: trying again changes nothing
EVERY = 2.0  # seconds between two looks at the log's size
LOST = os.EX_SOFTWARE  # of one whose engine is lost: it is tried on and on, and waits itself, see losses.py
LOGGER = "runtime.ops.process.supervisor"


def aside(log: Path, number: int) -> Path:
    """The log that was put aside `number` times ago: server-8000.1.log is the newest."""
    return log.with_suffix(f".{number}{log.suffix}")


def rotate(log: Path, *, most_bytes: int, files: int) -> bool:
    """Put a log that has reached `most_bytes` aside, and keep `files` in all; returns whether it had.

    It is copied and cut, as the server and what that starts have it open, and go on at its end. Where the file system
    cannot cut a file's beginning off (ext4 and XFS can), it is emptied, and what is written between the last read and
    that, microseconds later, is lost. Raises OSError: then nothing is.
    """
    if log.stat().st_size < most_bytes:
        return False
    if files > 1:
        _move(log, files)
    else:
        os.truncate(log, 0)
    return True


def remove_older(log: Path, *, files: int) -> None:
    """Remove what was put aside while more files were kept. Raises OSError."""
    for path in log.parent.glob(f"{log.stem}.*{log.suffix}"):
        number = path.name[len(log.stem) + 1 : -len(log.suffix)]
        if number.isdecimal() and int(number) >= files:
            path.unlink()


def _move(log: Path, files: int) -> None:
    """To the newest of those that were put aside; the oldest goes."""
    part = log.with_suffix(".part")
    part.unlink(missing_ok=True)  # of an interruption
    with (
        log.open("r+b") as written,
        os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy,
    ):
        shutil.copyfileobj(written, copy)
        for number in range(files - 1, 1, -1):
            if aside(log, number - 1).exists():
                aside(log, number - 1).replace(aside(log, number))
        part.replace(aside(log, 1))
        if not _cut(written, copy):
            shutil.copyfileobj(written, copy)  # what came meanwhile
            os.truncate(log, 0)


def _cut(written: IO[bytes], copy: IO[bytes]) -> bool:
    """Take from the log what was copied, but for its last lines, which the copy gives up; returns whether that could be
    done. Only whole blocks can be taken: blanks stand for what is left of a line that began in one. They lead the next
    line, which they leave an object where lines are JSON."""
    block = os.fstatvfs(written.fileno()).f_bsize
    copied = copy.tell()
    start = (copied - 1) // block * block
    written.seek(start)
    end = start + len(line := written.readline())
    if (
        start
        and end < copied
        and not LIBC.fallocate(written.fileno(), COLLAPSE_RANGE, ctypes.c_int64(0), ctypes.c_int64(start))
    ):
        os.pwrite(written.fileno(), b" " * len(line), 0)
        copy.truncate(end)
        return True
    written.seek(copied)
    return False


@dataclass(frozen=True)
class SupervisedCommand:
    """What to run: the server's `command`, the descriptor of the `lock`, the files of `Place`, the server's `url`, and
    of its log the `form`, ASR_LOG_FORMAT, the most bytes and how many files are kept."""

    command: tuple[str, ...]
    lock: int
    record: str
    log: str
    url: str
    form: str
    log_bytes: int
    log_files: int
    policy: Policy = USUAL

    def text(self) -> str:
        """As the supervisor's only argument."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "SupervisedCommand":
        """The inverse of `text`."""
        found = json.loads(text)
        return cls(**{**found, "command": tuple(found["command"]), "policy": Policy(**found["policy"])})


class Supervisor:
    """One server after the other. To be made with SIGNALS blocked: then none is lost before it is waited for.

    Raises KitError where it cannot be put on record.
    """

    def __init__(self, order: SupervisedCommand) -> None:
        self._order = order
        log = Path(order.log)
        self._record = ServiceRecord(order.url, log, log.stat().st_size, ProcessHandle.of(os.getpid()))
        self._stopping = False
        self._crashes = Crashes(order.policy)
        self._record.write(Path(order.record))

    def run(self) -> None:
        """Return when no server is to run any more."""
        with contextlib.suppress(OSError):
            remove_older(self._record.log, files=self._order.log_files)
        while True:
            self._rotate()
            try:
                server = self._launch()
            except OSError as error:
                reason = f"cannot be started: {self._order.command[0]}: {error.strerror}"
                return self._end("failed", reason)
            begun = time.monotonic()
            self._note(server=ProcessHandle.of(server.pid), phase="running")
            code = self._attend(server)
            cause = describe_exit(code)
            if self._stopping:
                return self._end("stopped", f"stopped, {cause}")
            if code == 0:
                return self._end("stopped", "ended without a fault, told to by another than invoke stop")
            if code in REFUSALS:
                return self._end("failed", f"{cause}; its log says why")
            crash = f"crashed: {cause}, pid {server.pid}, after {time.monotonic() - begun:.0f} s"
            pause = self._order.policy.pause if code == LOST else self._crashes.add(time.monotonic())
            if pause is None:
                return self._end("failed", f"{crash}, and had been started again {self._order.policy}")
            if self._pause(crash, pause):
                return self._end("stopped", f"stopped before it was started again; {crash}")

    def _launch(self) -> "subprocess.Popen[bytes]":
        """Start the server, which dies with this process and holds the lock too."""
        parent = os.getpid()

        def prepare() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server handles it, which takes Python a second
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            if os.getppid() != parent:  # ended before the line above
                os._exit(1)

        return subprocess.Popen(
            self._order.command, stdin=subprocess.DEVNULL, pass_fds=(self._order.lock,), preexec_fn=prepare
        )

    def _attend(self, server: "subprocess.Popen[bytes]") -> int:
        """Wait until the server ends, handing signals on; returns its exit code as subprocess does."""
        while (code := server.poll()) is None:
            received = signal.sigtimedwait(SIGNALS, EVERY)
            if received is None:
                self._rotate()
            elif received.si_signo in STOPS:
                self._stopping = True
                self._note(phase="stopping")
                server.send_signal(received.si_signo)
            elif received.si_signo == signal.SIGHUP:
                server.send_signal(signal.SIGHUP)
        return code

    def _pause(self, crash: str, seconds: float) -> bool:
        """Wait before the next start; returns whether a signal to stop came meanwhile."""
        self._say("error", f"{crash}; starts again in {seconds:g} s")
        self._note(server=None, phase="pausing", reason=crash, restarts=self._record.restarts + 1)
        return signal.sigtimedwait(STOPS, seconds) is not None

    def _end(self, phase: Phase, reason: str) -> None:
        self._say("error" if phase == "failed" else "info", reason)
        self._note(server=None, phase=phase, reason=reason)

    def _rotate(self) -> None:
        """Put the log aside if it is large; where there is no room for a copy, that is tried again and again."""
        with contextlib.suppress(OSError):
            if rotate(self._record.log, most_bytes=self._order.log_bytes, files=self._order.log_files):
                self._note(log_start=0)

    def _say(self, level: str, text: str) -> None:
        """A line in the log, which is standard error. A full disk must not end the server."""
        with contextlib.suppress(OSError):
            print(line(self._order.form, level, f"server {text}"), file=sys.stderr, flush=True)

    def _note(self, **changes: object) -> None:
        self._record = replace(self._record, **changes)  # type: ignore[arg-type]  # of the record's fields
        try:
            self._record.write(Path(self._order.record))
        except KitError as error:
            self._say("error", f"goes on, but its record does not: {error}")


def line(form: str, level: str, event: str) -> str:
    """Like the server's own, without the packages that it needs for them."""
    timestamp = datetime.now(timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if form == "json":
        told = {"event": event, "level": level, "logger": LOGGER, "timestamp": timestamp}
        return json.dumps(told, ensure_ascii=False)
    return f"{timestamp} [{level}] {event} [{LOGGER}]"


def main(text: str) -> None:
    """Detach from whoever called this, in whose eyes it ends when the supervisor is on record."""
    order = SupervisedCommand.parse(text)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # a shell that starts in the background ignores some, which is inherited
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if os.fork():
        return  # so that the supervisor is nobody's child, and leads no session that could get a terminal
    try:
        supervisor = Supervisor(order)
    except KitError as error:
        sys.exit(line(order.form, "critical", str(error)))
    os.dup2(2, 1)  # closes the pipe that the caller waits on
    supervisor.run()


if __name__ == "__main__":
    main(sys.argv[1])
