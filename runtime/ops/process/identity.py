"""A process for certain: a pid alone may belong to another one by now."""

import errno
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError

STATE, SUSPENDED = 0, "Tt"  # as START says: by a signal, by a tracer
START = 19  # of the fields after the command's name in /proc/<pid>/stat: start time; proc(5) counts it as field 22
RESIDENT = 1  # of /proc/<pid>/statm: resident pages


@dataclass(frozen=True)
class Process:
    """A process by its `pid` and by when it was `started`, in clock ticks after the machine was."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has this pid now. Raises OSError where there is none."""
        return cls(pid, int(_fields(pid)[START]))

    @property
    def uptime(self) -> float:
        """Seconds since it was started."""
        machine = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return max(0.0, machine - self.started / os.sysconf("SC_CLK_TCK"))

    @property
    def memory(self) -> int:
        """Resident bytes; 0 where it has ended."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[RESIDENT]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def suspended(self) -> bool:
        """Whether a signal such as SIGSTOP keeps it from running."""
        try:
            return _fields(self.pid)[STATE] in SUSPENDED
        except OSError:
            return False

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        with self.handle() as handle:
            return handle is not None

    @contextmanager
    def handle(self) -> Iterator[int | None]:
        """A pidfd, which means this process and no later one with its pid; None where it has ended.

        Raises KitError where there are no pidfds.
        """
        try:
            handle = os.pidfd_open(self.pid)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):  # an old kernel, an old seccomp profile
                raise KitError("pidfd_open", f"{error.strerror}: needs Linux 5.3 or newer", "make up") from None
            yield None
            return
        try:
            yield None if self._ended(handle) else handle
        finally:
            os.close(handle)

    def _ended(self, handle: int) -> bool:
        """Whether `handle`, opened by the pid, is of another process, or of one that only waits to be reaped."""
        try:
            # It has had its pid since it was started: if it has it now, it had it when the handle was opened.
            return Process.of(self.pid) != self or ended(handle, 0)
        except OSError:
            return True


def _fields(pid: int) -> list[str]:
    """Those after the command's name, which stands in parentheses and may hold any character, these too."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def check_handles() -> None:
    """Raises KitError where there are no pidfds: a server could be started, and not be stopped."""
    with Process.of(os.getpid()).handle():
        return


def ended(handle: int, seconds: float) -> bool:
    """Wait until the process of a pidfd ends, for so many seconds at most; returns whether it did."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def words(code: int) -> str:
    """An exit code of subprocess in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (dmesg tells if memory ran out)" if name == "SIGKILL" else name
