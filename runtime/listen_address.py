"""What ASR_HOST stands for: the addresses that a server listens on, and the one at which this machine reaches it."""

import socket

from runtime.hosts import LOCALHOST, in_url

ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"
LOOPBACKS = ("127.0.0.1", "::1")


def addresses(host: str) -> tuple[str, ...]:
    """The addresses to listen on: those of both families for `::`, as IPv4 clients reach it too, and for localhost."""
    if host == LOCALHOST:
        return LOOPBACKS
    return (ANY_IPV6, ANY_IPV4) if host == ANY_IPV6 else (host,)


def local_name(host: str) -> str:
    """Where this machine reaches it, as a URL has it; of servers on all addresses, IPv4's loopback, which is always
    there."""
    return in_url(LOOPBACKS[0] if is_open(host) else host)


def is_open(host: str) -> bool:
    """Whether it stands for all addresses of the machine."""
    return host in (ANY_IPV4, ANY_IPV6)


def has_ipv6() -> bool:
    """Whether this machine has IPv6 and the loopback address of it."""
    try:
        with socket.create_server((LOOPBACKS[1], 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
