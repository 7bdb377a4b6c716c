"""Who listens on a port of this host, read from /proc as `ss -ltnp` does."""

import contextlib
import ipaddress
import sys
from collections.abc import Iterator
from pathlib import Path

from runtime.ops.doctor.probes import Answer
from runtime.redaction import redact
from runtime.urls import ANY_IPV6, Address, addresses, plain

LISTENING = "0A"  # /proc/net/tcp, column st; include/net/tcp_states.h
ANY = ipaddress.ip_address(ANY_IPV6)
MOST_WORDS = 80  # of a command


def listener(host: str, port: int) -> Answer:
    """The processes that listen where a server with this ASR_HOST would, in words; empty if there are none."""
    sockets = set(_sockets(host, port))
    if not sockets:
        return Answer("")
    pids = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*") if _holds(path, sockets))
    if not pids:
        return Answer("a process of another user (sudo ss -ltnp shows it)")
    return Answer("; ".join(f"pid {pid} ({_command(pid)})" for pid in pids))


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
