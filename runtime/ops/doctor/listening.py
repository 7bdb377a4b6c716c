"""Who listens on a port of this host, read from /proc as `ss -ltnp` does."""

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from runtime.ops.doctor.probes import Answer
from runtime.ops.doctor.redaction import redact

LISTENING = "0A"  # /proc/net/tcp, column st; include/net/tcp_states.h
ANYWHERE = ("0" * 8, "0" * 32)  # 0.0.0.0, and ::, which takes IPv4 too
MOST_WORDS = 80  # of a command


def listener(address: str, port: int) -> Answer:
    """The processes that listen where a server at this IPv4 address would, in words; empty if there are none."""
    sockets = set(_sockets(address, port))
    if not sockets:
        return Answer("")
    pids = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*") if _holds(path, sockets))
    if not pids:
        return Answer("a process of another user (sudo ss -ltnp shows it)")
    return Answer("; ".join(f"pid {pid} ({_command(pid)})" for pid in pids))


def _sockets(address: str, port: int) -> Iterator[str]:
    """The listening sockets in the way, as /proc names them."""
    wanted = (*ANYWHERE, _as_in_proc(address))
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                local, _, local_port = fields[1].partition(":")
                taken = fields[3] == LISTENING and int(local_port, 16) == port
                if taken and (address == "0.0.0.0" or local in wanted):
                    yield f"socket:[{fields[9]}]"


def _as_in_proc(address: str) -> str:
    """An IPv4 address as /proc/net/tcp has it: a number in the machine's byte order, in hexadecimal."""
    try:
        return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"
    except OSError:
        return ""


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
