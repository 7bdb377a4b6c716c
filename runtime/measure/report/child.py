"""A task of this kit as a child process: what it prints passes through, and it frees the device by ending."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from env.sources import PROJECT
from runtime.host.docker import show
from runtime.host.processes import Process, ended

INTERRUPTED = 130  # the exit code of a task that Ctrl-C ended
DEADLINE = 60.0  # seconds for a task to write what it has once it is interrupted
GRACE = 10.0  # seconds for what ends when the task has, such as multiprocessing's tracker of resources


@dataclass(frozen=True)
class Ended:
    """How a task ended: its exit code, negative for a signal, the ids of processes that it left behind, and whether
    Ctrl-C meant this process too, not the task alone."""

    code: int
    left: tuple[int, ...] = ()
    stopped: bool = False

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.code in (INTERRUPTED, -signal.SIGINT)


def run(words: Sequence[str]) -> Ended:
    """Run `invoke` with these words, in a session of its own, and wait. Ctrl-C is handed on, once, and the task may
    write what it has; a second one ends it."""
    process = subprocess.Popen([sys.executable, "-m", "invoke", *words], cwd=PROJECT, start_new_session=True)
    try:
        show(["invoke", *words])
        return Ended(process.wait(), _left(process.pid))
    except KeyboardInterrupt:
        _interrupt(process)
        return Ended(INTERRUPTED, _left(process.pid), stopped=True)


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(DEADLINE)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)  # its session's group, by its id
        process.wait()


def _left(leader: int) -> tuple[int, ...]:
    """The processes of a session that do not end."""
    until = time.monotonic() + GRACE
    return tuple(pid for pid in _session(leader) if not _ends(pid, until))


def _ends(pid: int, until: float) -> bool:
    try:
        with Process.of(pid).handle() as handle:
            return handle is None or ended(handle, max(0.0, until - time.monotonic()))
    except OSError:  # it has ended since
        return True


def _session(leader: int) -> tuple[int, ...]:
    """The processes that a session still has."""
    found = []
    for name in (entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with contextlib.suppress(OSError):  # it has ended since
            if os.getsid(int(name)) == leader:
                found.append(int(name))
    return tuple(sorted(found))
