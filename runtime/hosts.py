"""Names and addresses of hosts: how URLs write them, and which of them are this machine's own."""

import functools
import ipaddress
import socket
from urllib.parse import urlsplit

LOCALHOST = "localhost"
IPV6_PREFIX = 64  # bits; the others of an address are its host's own to choose, and to change at each request

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def in_url(host: str, port: int | None = None) -> str:
    """As a URL has it, with the port if there is one: an IPv6 address in brackets."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def hostname(host: str) -> str:
    """The name or address in what a `Host` header says: without port and brackets, in lower case; empty where there is
    none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


@functools.cache
def own_names() -> frozenset[str]:
    """This machine's name, short and with its domain, as /etc/hosts or else the name server has it; that may take as
    long as a name server keeps silent."""
    return frozenset(name.lower() for name in (socket.gethostname(), socket.getfqdn()))


def network(address: str) -> str:
    """As what an address counts where callers are told apart by theirs: IPv6's by their /64."""
    found = ipaddress.ip_address(address)
    return address if found.version == 4 else str(ipaddress.ip_network((found.packed, IPV6_PREFIX), strict=False))


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own loopback; nobody else reaches what listens there."""
    host = host.lower().rstrip(".")
    if host == LOCALHOST or host.endswith(f".{LOCALHOST}"):  # RFC 6761
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def plain(address: Address) -> Address:
    """An IPv4 address that a socket for both families shows as ::ffff:192.0.2.1 as it is; any other unchanged."""
    return getattr(address, "ipv4_mapped", None) or address
