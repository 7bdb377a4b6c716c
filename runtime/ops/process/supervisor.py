"""The supervisor: a small process that runs the server, and starts it again after a crash.

It waits for signals, and rotates the log when that has grown large. SIGTERM and SIGINT are passed on to the server, and
end the supervisor with it. SIGHUP is passed on too, and ends neither: the server reads its keys and certificate again.
If the supervisor itself is killed, the kernel sends the server SIGTERM.
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
from runtime.restart_policy import DEFAULT_POLICY, Crashes, Policy

COLLAPSE_RANGE = 8  # FALLOC_FL_COLLAPSE_RANGE, see fallocate(2)
LIBC = ctypes.CDLL(None)

PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
HANDLED_SIGNALS = STOP_SIGNALS | {signal.SIGHUP, signal.SIGCHLD}
SETUP_FAULT_CODES = (1, 2)  # exit codes of a server that cannot start as it is configured: a restart changes nothing
ROTATION_POLL_SECONDS = 2.0  # seconds between two checks of the log's size
# Of a server whose engine is lost. It is restarted without limit, as it waits by itself before it loads: serve.py.
ENGINE_LOST_CODE = os.EX_SOFTWARE
SUPERVISOR_LOGGER = "runtime.ops.process.supervisor"


def rotated_path(log: Path, number: int) -> Path:
    """Where the log goes at its rotation: server-8000.1.log is the newest of the rotated ones."""
    return log.with_suffix(f".{number}{log.suffix}")


def rotate(log: Path, *, max_bytes: int, files: int) -> bool:
    """Rotate a log that has reached `max_bytes`, and keep `files` in all; returns whether it had.

    It is copied, then cut: the server and its child processes have it open, and go on writing at its end. If the file
    system cannot remove the beginning of a file (ext4 and XFS can), the log is truncated, and what is written in the
    microseconds between the last read and that is lost. Raises OSError: then nothing is lost.
    """
    if log.stat().st_size < max_bytes:
        return False
    if files > 1:
        _move_log(log, files)
    else:
        os.truncate(log, 0)
    return True


def remove_older(log: Path, *, files: int) -> None:
    """Remove rotated logs beyond `files`, from when more were kept. Raises OSError."""
    for path in log.parent.glob(f"{log.stem}.*{log.suffix}"):
        number = path.name[len(log.stem) + 1 : -len(log.suffix)]
        if number.isdecimal() and int(number) >= files:
            path.unlink()


def _move_log(log: Path, files: int) -> None:
    """Move the log's content to the newest rotated file; the oldest is overwritten."""
    part = log.with_suffix(".part")
    part.unlink(missing_ok=True)  # left by an interruption
    with (
        log.open("r+b") as written,
        os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy,
    ):
        shutil.copyfileobj(written, copy)
        for number in range(files - 1, 1, -1):
            if rotated_path(log, number - 1).exists():
                rotated_path(log, number - 1).replace(rotated_path(log, number))
        part.replace(rotated_path(log, 1))
        if not _collapse(written, copy):
            shutil.copyfileobj(written, copy)  # what was written meanwhile
            os.truncate(log, 0)


def _collapse(written: IO[bytes], copy: IO[bytes]) -> bool:
    """Remove what was copied from the log, all but its last lines, which are removed from the copy; returns whether the
    file system can. It removes whole blocks only: the rest of a line that began in one is overwritten with blanks,
    which lead the next line and leave it valid if lines are JSON."""
    block = os.fstatvfs(written.fileno()).f_bsize
    copied = copy.tell()
    start = (copied - 1) // block * block
    written.seek(start)
    end = start + len(rest := written.readline())
    if (
        start
        and end < copied
        and not LIBC.fallocate(written.fileno(), COLLAPSE_RANGE, ctypes.c_int64(0), ctypes.c_int64(start))
    ):
        os.pwrite(written.fileno(), b" " * len(rest), 0)
        copy.truncate(end)
        return True
    written.seek(copied)
    return False


@dataclass(frozen=True)
class SupervisedCommand:
    """What to run: the server's `command`, the descriptor of the `lock`, the paths of StateFiles, the server's `url`,
    the log's format (ASR_LOG_FORMAT), its most bytes before it is rotated and how many files are kept."""

    command: tuple[str, ...]
    lock: int
    record: str
    log: str
    url: str
    log_format: str
    log_bytes: int
    log_files: int
    policy: Policy = DEFAULT_POLICY

    def text(self) -> str:
        """JSON: the supervisor's only argument."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "SupervisedCommand":
        """The inverse of `text`."""
        found = json.loads(text)
        return cls(**{**found, "command": tuple(found["command"]), "policy": Policy(**found["policy"])})


class Supervisor:
    """Runs one server after the other. Create it with HANDLED_SIGNALS blocked: then none is lost before it is waited
    for.

    Raises KitError if its record cannot be written.
    """

    def __init__(self, spec: SupervisedCommand) -> None:
        self._spec = spec
        log = Path(spec.log)
        self._record = ServiceRecord(spec.url, log, log.stat().st_size, ProcessHandle.of(os.getpid()))
        self._stopping = False
        self._crashes = Crashes(spec.policy)
        self._record.write(Path(spec.record))

    def run(self) -> None:
        """Run the server and restart it after crashes; return when no server is to run any more."""
        with contextlib.suppress(OSError):
            remove_older(self._record.log, files=self._spec.log_files)
        while True:
            self._rotate()
            try:
                server = self._launch()
            except OSError as error:
                reason = f"cannot be started: {self._spec.command[0]}: {error.strerror}"
                return self._end("failed", reason)
            started = time.monotonic()
            self._update_record(server=ProcessHandle.of(server.pid), phase="running")
            code = self._await_exit(server)
            cause = describe_exit(code)
            if self._stopping:
                return self._end("stopped", f"stopped, {cause}")
            if code == 0:
                return self._end("stopped", "ended without a fault, told to by another than invoke stop")
            if code in SETUP_FAULT_CODES:
                return self._end("failed", f"{cause}; its log says why")
            crash = f"crashed: {cause}, pid {server.pid}, after {time.monotonic() - started:.0f} s"
            pause = self._spec.policy.pause if code == ENGINE_LOST_CODE else self._crashes.add(time.monotonic())
            if pause is None:
                return self._end("failed", f"{crash}, and had been started again {self._spec.policy}")
            if self._pause(crash, pause):
                return self._end("stopped", f"stopped before it was started again; {crash}")

    def _launch(self) -> "subprocess.Popen[bytes]":
        """Start the server, which ends with this process and shares the lock."""
        parent = os.getpid()

        def prepare() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server handles it, which takes Python a second
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
            if os.getppid() != parent:  # ended before the line above
                os._exit(1)

        return subprocess.Popen(
            self._spec.command, stdin=subprocess.DEVNULL, pass_fds=(self._spec.lock,), preexec_fn=prepare
        )

    def _await_exit(self, server: "subprocess.Popen[bytes]") -> int:
        """Wait until the server ends, and pass signals on to it; returns its exit code as subprocess does."""
        while (code := server.poll()) is None:
            received = signal.sigtimedwait(HANDLED_SIGNALS, ROTATION_POLL_SECONDS)
            if received is None:
                self._rotate()
            elif received.si_signo in STOP_SIGNALS:
                self._stopping = True
                self._update_record(phase="stopping")
                server.send_signal(received.si_signo)
            elif received.si_signo == signal.SIGHUP:
                server.send_signal(signal.SIGHUP)
        return code

    def _pause(self, crash: str, seconds: float) -> bool:
        """Wait before the next start; returns whether a stop signal came meanwhile."""
        self._log("error", f"{crash}; starts again in {seconds:g} s")
        self._update_record(server=None, phase="pausing", reason=crash, restarts=self._record.restarts + 1)
        return signal.sigtimedwait(STOP_SIGNALS, seconds) is not None

    def _end(self, phase: Phase, reason: str) -> None:
        self._log("error" if phase == "failed" else "info", reason)
        self._update_record(server=None, phase=phase, reason=reason)

    def _rotate(self) -> None:
        """Rotate the log if it is large; if there is no room for a copy, the next check tries again."""
        with contextlib.suppress(OSError):
            if rotate(self._record.log, max_bytes=self._spec.log_bytes, files=self._spec.log_files):
                self._update_record(log_start=0)

    def _log(self, level: str, text: str) -> None:
        """Write a line to the log, which is standard error. A full disk must not end the server."""
        with contextlib.suppress(OSError):
            print(format_line(self._spec.log_format, level, f"server {text}"), file=sys.stderr, flush=True)

    def _update_record(self, **changes: object) -> None:
        self._record = replace(self._record, **changes)  # type: ignore[arg-type]  # of the record's fields
        try:
            self._record.write(Path(self._spec.record))
        except KitError as error:
            self._log("error", f"goes on, but its record does not: {error}")


def format_line(log_format: str, level: str, event: str) -> str:
    """A log line like the server's own, made without the packages that the server's logging needs."""
    timestamp = datetime.now(timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if log_format == "json":
        fields = {"event": event, "level": level, "logger": SUPERVISOR_LOGGER, "timestamp": timestamp}
        return json.dumps(fields, ensure_ascii=False)
    return f"{timestamp} [{level}] {event} [{SUPERVISOR_LOGGER}]"


def main(text: str) -> None:
    """Detach from the calling process, for which this one ends once the supervisor has recorded itself."""
    spec = SupervisedCommand.parse(text)
    for number in HANDLED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # a shell that starts in the background ignores some, which is inherited
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    if os.fork():
        return  # so that the supervisor has no parent that waits for it, and leads no session that could get a terminal
    try:
        supervisor = Supervisor(spec)
    except KitError as error:
        sys.exit(format_line(spec.log_format, "critical", str(error)))
    os.dup2(2, 1)  # closes the pipe that the caller waits on
    supervisor.run()


if __name__ == "__main__":
    main(sys.argv[1])
