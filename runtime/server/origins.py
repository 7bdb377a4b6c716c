"""Which web pages may use the server from a browser: CORS, and checks of Origin and Host."""

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

ANY_NAME = "*"
REALTIME_PATH = "/v1/realtime"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # change and cost nothing, and another's page cannot read the answer
PORT_PATTERN = r":\d+$"
ORIGIN_PORTS = {"http": ":80", "https": ":443"}  # browsers leave them out
# What pages may read of an answer, beside what CORS lets them read anyway.
EXPOSED_HEADERS = (
    "Retry-After",
    "x-request-id",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    WARNINGS_HEADER,
)

log = logging.getLogger(__name__)

ALLOWED_HOSTS_VARIABLE = "ASR_ALLOWED_HOSTS"
NAME_LOOKUP_TIMEOUT = 1.0  # in which a name server is awaited at start
# Below these nobody can register a name: RFC 6762, RFC 8375 and ICANN (internal, corp, home); Kubernetes (its
# cluster.local is below local), OpenWrt and glibc use the others, which are in no root zone.
PRIVATE_SUFFIXES = (".local", ".home.arpa", ".internal", ".corp", ".home", ".svc", ".lan", ".localdomain")


def read_origins(text: str | None) -> frozenset[str]:
    """Parse ASR_CORS_ORIGINS; origins are kept as browsers send them."""
    return frozenset(_without_default_port(part.strip()) for part in text.split(",")) if text else frozenset()


def add_cors(app: FastAPI, origins: frozenset[str]) -> None:
    """Answer pages of these origins. Cookies are not allowed, as scripts send keys in headers."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )


def opens_session(scope: Scope) -> bool:
    """Whether a request opens a WebSocket. A plain request to the WebSocket's path, which a page makes to learn why it
    was refused, is treated likewise."""
    return bool(scope["type"] == "websocket" or scope["path"].rstrip("/") == REALTIME_PATH)


def check_origin(scope: Scope, origins: frozenset[str], *, keyed: bool) -> None:
    """Raise ApiError, 403, for a request that a page of another origin makes without a preflight: a WebSocket, to which
    browsers do not apply CORS, or, where no key is needed, a form. Programs send no Origin."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None or ANY_NAME in origins or origin in origins:
        return
    if not opens_session(scope):
        # Of Sec-Fetch-Site browsers say the truth, behind any proxy. An origin that is no page's, as an extension's or
        # an application's, can be no page's pretence.
        own = headers.get("sec-fetch-site") == "same-origin" or origin.partition("://")[0] not in (
            *ORIGIN_PORTS,
            "null",
        )
        if keyed or scope["method"] in SAFE_METHODS or own:
            return
    # As a proxy in front was asked. Scripts can set that header for no WebSocket, and Host for nothing.
    forwarded = headers.get("x-forwarded-host", "").partition(",")[0].strip()
    hosts = [host for host in (headers.get("host", ""), forwarded) if host]
    if not any(_is_same_origin(origin, host, forwarded=is_forwarded(headers)) for host in hosts):
        message = f"pages of {origin} may not use this server, which was asked as {' or '.join(hosts) or 'no host'}"
        proxy = "proxy_set_header Host $http_host (docker/nginx/README.md)"
        advice = f"behind nginx, {proxy} passes on the host that the page came from; ASR_CORS_ORIGINS lets in others"
        raise ApiError(403, f"{message}; {advice}", code="origin")


def _is_same_origin(origin: str, host: str, *, forwarded: bool) -> bool:
    """Whether a page came from this host. Behind a proxy, a host without a port, such as nginx's $host, stands for any
    port; otherwise for port 80 or 443."""
    scheme, _, host_and_port = origin.partition("://")
    if scheme not in ORIGIN_PORTS:  # an extension of the browser may have any name for a host
        return False
    host = host.lower()
    return _without_default_port(f"{scheme}://{host}") == origin or (
        forwarded and re.sub(PORT_PATTERN, "", host_and_port) == host
    )


def _without_default_port(origin: str) -> str:
    return origin.removesuffix(ORIGIN_PORTS.get(origin.partition(":")[0], ""))


def read_hosts(text: str | None) -> frozenset[str]:
    """Parse ASR_ALLOWED_HOSTS."""
    return frozenset(hostname(part.strip()) for part in text.split(",")) if text else frozenset()


def look_up_names() -> Container[str]:
    """This machine's own names. No request waits for them: what the name server answers late is added when it
    arrives."""
    host = socket.gethostname().lower()
    names = {host}
    lookup = threading.Thread(target=lambda: names.update(own_names()), name="own-names", daemon=True)
    lookup.start()
    lookup.join(NAME_LOOKUP_TIMEOUT)
    if lookup.is_alive():
        log.warning("the name server has not answered with this machine's domain; until it does, %s has none", host)
    return names


def check_host(scope: Scope, allowed: Container[str], own: Container[str]) -> None:
    """Raise ApiError, 403, if Host, or the X-Forwarded-Host of a proxy, is neither a name of this server nor an allowed
    one: a page whose name was rebound to this address."""
    if ANY_NAME in allowed:
        return
    headers = Headers(scope=scope)
    forwarded = headers.get("x-forwarded-host", "").split(",")
    for host in (headers.get("host", ""), *(part.strip() for part in forwarded)):
        name = hostname(host)
        if host and not (_is_unregistrable(name) or name in allowed or name in own):
            message = f"without keys this server does not answer to the name {name or host!r}, which a page can have"
            advice = f"set {ALLOWED_HOSTS_VARIABLE}={name or 'NAME'}, or keys (ASR_API_KEY, ASR_KEYS_FILE)"
            raise ApiError(403, f"{message}; if it is this server's, {advice}", code="host")


def _is_unregistrable(name: str) -> bool:
    """Whether no web page can have this name. Browsers take what ends in a number, such as 127.1, for an address."""
    last = name.rpartition(".")[2]
    return bool(last) and (last == name or last.isdecimal() or name.endswith(PRIVATE_SUFFIXES) or is_loopback(name))
