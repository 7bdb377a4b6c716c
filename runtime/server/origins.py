"""Whose pages may use the server from a browser."""

import logging
import re
import socket
import threading
from collections.abc import Container

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from runtime.server.auth import is_forwarded
from runtime.server.errors import ApiError
from runtime.server.streaming import WARNINGS_HEADER
from runtime.urls import hostname, is_loopback, own_names

ANY = "*"
REALTIME = "/v1/realtime"
HARMLESS = ("GET", "HEAD", "OPTIONS")  # change and cost nothing, and another's page cannot read the answer
PORT = r":\d+$"
USUAL_PORTS = {"http": ":80", "https": ":443"}  # browsers leave them out
# What pages may read of an answer, beside what CORS lets them read anyway.
EXPOSED = (
    "Retry-After",
    "x-request-id",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    WARNINGS_HEADER,
)

log = logging.getLogger(__name__)

VARIABLE = "ASR_ALLOWED_HOSTS"
LOOK_UP_SECONDS = 1.0  # in which a name server is awaited at start
# Below these nobody can register a name: RFC 6762, RFC 8375 and ICANN (internal, corp, home); Kubernetes (its
# cluster.local is below local), OpenWrt and glibc use the others, which are in no root zone.
PRIVATE = (".local", ".home.arpa", ".internal", ".corp", ".home", ".svc", ".lan", ".localdomain")


def read_origins(text: str | None) -> frozenset[str]:
    """The origins in ASR_CORS_ORIGINS, as browsers write them."""
    return frozenset(_as_sent(part.strip()) for part in text.split(",")) if text else frozenset()


def let_in(app: FastAPI, origins: frozenset[str]) -> None:
    """Have pages of these origins be answered. Keys are sent by scripts, so cookies are of no use here."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )


def opens_session(scope: Scope) -> bool:
    """Whether a request is a WebSocket's. What asks at a WebSocket's address without being one, as a page does to learn
    why it was refused, is treated likewise."""
    return bool(scope["type"] == "websocket" or scope["path"].rstrip("/") == REALTIME)


def check_origin(scope: Scope, origins: frozenset[str], *, keyed: bool) -> None:
    """Raises ApiError, 403, for what a page of another origin asks and browsers send without asking first: a WebSocket,
    as they do not apply CORS to those, and a form where no key is needed, which only scripts can add. Programs name no
    origin."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None or ANY in origins or origin in origins:
        return
    if not opens_session(scope):
        # Of Sec-Fetch-Site browsers say the truth, behind any proxy. An origin that is no page's, as an extension's or
        # an application's, can be no page's pretence.
        own = headers.get("sec-fetch-site") == "same-origin" or origin.partition("://")[0] not in (*USUAL_PORTS, "null")
        if keyed or scope["method"] in HARMLESS or own:
            return
    # As a proxy in front was asked. Scripts can set that header for no WebSocket, and Host for nothing.
    forwarded = headers.get("x-forwarded-host", "").partition(",")[0].strip()
    asked = [host for host in (headers.get("host", ""), forwarded) if host]
    if not any(_is_own(origin, host, forwarded=is_forwarded(headers)) for host in asked):
        words = f"pages of {origin} may not use this server, which was asked as {' or '.join(asked) or 'no host'}"
        proxy = "proxy_set_header Host $http_host (docker/nginx/README.md)"
        advice = f"behind nginx, {proxy} passes on the host that the page came from; ASR_CORS_ORIGINS lets in others"
        raise ApiError(403, f"{words}; {advice}", code="origin")


def _is_own(origin: str, host: str, *, forwarded: bool) -> bool:
    """Whether a page came from this host. Behind a proxy, a host without a port, as nginx's $host is, stands for any
    port; asked directly, it is the one of port 80 or 443, and pages of other ports are others'."""
    scheme, _, place = origin.partition("://")
    if scheme not in USUAL_PORTS:  # an extension of the browser may have any name for a host
        return False
    host = host.lower()
    return _as_sent(f"{scheme}://{host}") == origin or (forwarded and re.sub(PORT, "", place) == host)


def _as_sent(origin: str) -> str:
    return origin.removesuffix(USUAL_PORTS.get(origin.partition(":")[0], ""))


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
