"""By which names a server that needs no key may be asked.

A page can have its own name lead to this server, and then a browser takes both for one origin (DNS rebinding). It can
do so with no address and with no name that nobody can register. A request that names no host is of no browser.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Scope

from runtime.hosts import hostname, is_loopback, own_names
from runtime.server.errors import ApiError

VARIABLE = "ASR_ALLOWED_HOSTS"
ANY = "*"
# Below these nobody can register a name: RFC 6762, RFC 8375 and ICANN (internal, corp, home); Kubernetes (its
# cluster.local is below local), OpenWrt and glibc use the others, which are in no root zone.
PRIVATE = (".local", ".home.arpa", ".internal", ".corp", ".home", ".svc", ".lan", ".localdomain")


def read_hosts(text: str | None) -> frozenset[str]:
    """The names in ASR_ALLOWED_HOSTS."""
    return frozenset(hostname(part.strip()) for part in text.split(",")) if text else frozenset()


async def check_host(scope: Scope, allowed: frozenset[str]) -> None:
    """Raises ApiError, 403, for a request by a name that is neither this server's nor among those that are allowed;
    what a proxy in front was asked by counts too."""
    if ANY in allowed:
        return
    headers = Headers(scope=scope)
    forwarded = headers.get("x-forwarded-host", "").split(",")
    for host in (headers.get("host", ""), *(part.strip() for part in forwarded)):
        name = hostname(host)
        # A name server may take long to tell this machine's names.
        if host and not (_is_safe(name) or name in allowed or name in await asyncio.to_thread(own_names)):
            words = f"without keys this server does not answer to the name {name or host!r}, which a page can have"
            advice = f"set {VARIABLE}={name or 'NAME'}, or keys (ASR_API_KEY, ASR_KEYS_FILE)"
            raise ApiError(403, f"{words}; if it is this server's, {advice}", code="host")


def _is_safe(name: str) -> bool:
    """Whether no page can have this name. What ends in a number is an address to browsers, as 127.1 is."""
    last = name.rpartition(".")[2]
    return bool(last) and (last == name or last.isdecimal() or name.endswith(PRIVATE) or is_loopback(name))
