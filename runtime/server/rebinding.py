"""By which names a server that needs no key may be asked.

A page can have its own name lead to this server, and then a browser takes both for one origin (DNS rebinding). It can
do so with no address and with no name that nobody can register. A request that names no host is of no browser.
"""

import logging
import socket
import threading
from collections.abc import Container

from starlette.datastructures import Headers
from starlette.types import Scope

from runtime.server.errors import ApiError
from runtime.urls import hostname, is_loopback, own_names

log = logging.getLogger(__name__)

VARIABLE = "ASR_ALLOWED_HOSTS"
LOOK_UP_SECONDS = 1.0  # in which a name server is awaited at start
ANY = "*"
# Below these nobody can register a name: RFC 6762, RFC 8375 and ICANN (internal, corp, home); Kubernetes (its
# cluster.local is below local), OpenWrt and glibc use the others, which are in no root zone.
PRIVATE = (".local", ".home.arpa", ".internal", ".corp", ".home", ".svc", ".lan", ".localdomain")


def read_hosts(text: str | None) -> frozenset[str]:
    """The names in ASR_ALLOWED_HOSTS."""
    return frozenset(hostname(part.strip()) for part in text.split(",")) if text else frozenset()


def look_up_names() -> Container[str]:
    """This machine's own names, for which no request waits: what the name server tells late is added when it does."""
    host = socket.gethostname().lower()
    names = {host}
    looking = threading.Thread(target=lambda: names.update(own_names()), name="own-names", daemon=True)
    looking.start()
    looking.join(LOOK_UP_SECONDS)
    if looking.is_alive():
        log.warning("the name server does not tell this machine's domain; until it does, %s has none", host)
    return names


def check_host(scope: Scope, allowed: Container[str], own: Container[str]) -> None:
    """Raises ApiError, 403, for a request by a name that is neither this server's nor among those that are allowed;
    what a proxy in front was asked by counts too."""
    if ANY in allowed:
        return
    headers = Headers(scope=scope)
    forwarded = headers.get("x-forwarded-host", "").split(",")
    for host in (headers.get("host", ""), *(part.strip() for part in forwarded)):
        name = hostname(host)
        if host and not (_is_safe(name) or name in allowed or name in own):
            words = f"without keys this server does not answer to the name {name or host!r}, which a page can have"
            advice = f"set {VARIABLE}={name or 'NAME'}, or keys (ASR_API_KEY, ASR_KEYS_FILE)"
            raise ApiError(403, f"{words}; if it is this server's, {advice}", code="host")


def _is_safe(name: str) -> bool:
    """Whether no page can have this name. What ends in a number is an address to browsers, as 127.1 is."""
    last = name.rpartition(".")[2]
    return bool(last) and (last == name or last.isdecimal() or name.endswith(PRIVATE) or is_loopback(name))
