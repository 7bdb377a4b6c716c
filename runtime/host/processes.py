"""A process for certain: a pid alone may belong to another one by now."""

import contextlib
import errno
import ipaddress
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from runtime.host.probe import CommandResult
from runtime.redaction import redact
from runtime.urls import ANY_IPV6, Address, addresses, plain

STATE, SUSPENDED = 0, "Tt"  # as START says: by a signal, by a tracer
START = 19  # of the fields after the command's name in /proc/<pid>/stat: start time; proc(5) counts it as field 22
RESIDENT = 1  # of /proc/<pid>/statm: resident pages

LISTENING = "0A"  # /proc/net/tcp, column st; include/net/tcp_states.h
ANY = ipaddress.ip_address(ANY_IPV6)
MOST_WORDS = 80  # of a command


@dataclass(frozen=True)
class ProcessHandle:
    """A process by its `pid` and by when it was `started`, in clock ticks after the machine was."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessHandle":
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
            return ProcessHandle.of(self.pid) != self or ended(handle, 0)
        except OSError:
            return True


def _fields(pid: int) -> list[str]:
    """Those after the command's name, which stands in parentheses and may hold any character, these too."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def check_handles() -> None:
    """Raises KitError where there are no pidfds: a server could be started, and not be stopped."""
    with ProcessHandle.of(os.getpid()).handle():
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


def listener(host: str, port: int) -> CommandResult:
    """The processes that listen where a server with this ASR_HOST would, in words; empty if there are none."""
    sockets = set(_sockets(host, port))
    if not sockets:
        return CommandResult("")
    pids = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*") if _holds(path, sockets))
    if not pids:
        return CommandResult("a process of another user (sudo ss -ltnp shows it)")
    return CommandResult("; ".join(f"pid {pid} ({_command(pid)})" for pid in pids))


def _sockets(host: str, port: int) -> Iterator[str]:
    """The listening sockets in the way, as /proc names them."""
    wanted = [ipaddress.ip_address(address) for address in addresses(host)]
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                local, _, local_port = fields[1].partition(":")
                taken = fields[3] == LISTENING and int(local_port, 16) == port
                if taken and any(_clash(address, _from_proc(local)) for address in wanted):
                    yield f"socket:[{fields[9]}]"


def _clash(wanted: Address, taken: Address) -> bool:
    """Whether one port cannot be listened on at both addresses. All addresses of IPv6 are most often IPv4's too."""
    if wanted == taken or ANY in (wanted, taken):
        return True
    return wanted.version == taken.version and (wanted.is_unspecified or taken.is_unspecified)


def _from_proc(text: str) -> Address:
    """An address of /proc/net/tcp or tcp6: numbers of 32 bits in the machine's byte order, in hexadecimal."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    address = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return plain(ipaddress.ip_address(address))


def _holds(process: Path, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):  # ended meanwhile, or another user's
        return any(str(link.readlink()) in sockets for link in (process / "fd").iterdir())
    return False


def _command(pid: int) -> str:
    words = b""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    text = redact(words.replace(b"\0", b" ").decode(errors="replace").strip())
    return text if len(text) <= MOST_WORDS else text[: MOST_WORDS - 1] + "…"
