"""Processes of this machine: one for certain (a pid alone may belong to another by now), what memory it takes, how it
ended, and who listens on a port."""

import errno
import ipaddress
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from env.errors import KitError
from runtime.redaction import redact
from runtime.urls import ANY_IPV6, Address, addresses, plain

# Of the fields after the command's name in /proc/<pid>/stat: proc(5) counts it as field 22. Not psutil's create_time():
# that is by the wall clock, so once the clock is set, a record written before would name no process any more.
START_TICKS = 19
SUSPENDED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
EVERY_ADDRESS = ipaddress.ip_address(ANY_IPV6)
COMMAND_CHARACTERS = 80  # of a command that are shown


@dataclass(frozen=True)
class ProcessHandle:
    """A process by its `pid` and its start: `started`, in clock ticks after the machine's."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessHandle":
        """The process that has this pid now. Raises OSError where there is none."""
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()  # behind the name in parentheses, which may hold any character
        return cls(pid, int(fields[START_TICKS]))

    @property
    def uptime(self) -> float:
        """Seconds since it was started."""
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / os.sysconf("SC_CLK_TCK"))

    @property
    def memory(self) -> int:
        """Resident bytes; 0 where it has ended."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    @property
    def suspended(self) -> bool:
        """Whether a signal such as SIGSTOP, or a tracer, keeps it from running."""
        try:
            return psutil.Process(self.pid).status() in SUSPENDED
        except psutil.Error:
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
        """Whether `handle`, opened by pid, is another process's, or that of one which only waits to be reaped."""
        try:
            # It has had its pid since it was started: if it has it now, it had it when the handle was opened.
            return ProcessHandle.of(self.pid) != self or await_exit(handle, 0)
        except OSError:
            return True


def check_pidfd() -> None:
    """Raises KitError where there are no pidfds: a server could be started, and not be stopped."""
    with ProcessHandle.of(os.getpid()).handle():
        return


def await_exit(handle: int, seconds: float) -> bool:
    """Wait until the process of a pidfd ends, for so many seconds at most; returns whether it did."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def describe_exit(code: int) -> str:
    """An exit code of subprocess in words: `exit code 1`, or the signal that ended the process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (dmesg tells if memory ran out)" if name == "SIGKILL" else name


def find_listener(host: str, port: int) -> str:
    """Who listens where a server with this ASR_HOST would: pids and commands in words; empty where nobody does."""
    wanted = [ipaddress.ip_address(address) for address in addresses(host)]
    taken = [
        socket
        for socket in psutil.net_connections("tcp")
        if socket.status == psutil.CONN_LISTEN
        and socket.laddr.port == port
        and any(_clash(address, plain(ipaddress.ip_address(socket.laddr.ip))) for address in wanted)
    ]
    pids = sorted({socket.pid for socket in taken if socket.pid})
    if taken and not pids:
        return "a process of another user (sudo ss -ltnp shows it)"
    return "; ".join(f"pid {pid} ({_command_line(pid)})" for pid in pids)


def _clash(wanted: Address, taken: Address) -> bool:
    """Whether one port cannot be listened on at both addresses. All addresses of IPv6 are most often IPv4's too."""
    if wanted == taken or EVERY_ADDRESS in (wanted, taken):
        return True
    return wanted.version == taken.version and (wanted.is_unspecified or taken.is_unspecified)


def _command_line(pid: int) -> str:
    try:
        text = redact(" ".join(psutil.Process(pid).cmdline()))
    except psutil.Error:
        text = ""
    return text if len(text) <= COMMAND_CHARACTERS else text[: COMMAND_CHARACTERS - 1] + "…"
