"""Which proxy leads to a URL: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in capitals or small letters.

The variables are read as the standard library does, which prefers small letters. NO_PROXY lists names with all that is
below them, names with a port, addresses, networks such as 10.0.0.0/8, and `*` for everything, as curl and Go read it.
Loopback is never behind a proxy, whatever NO_PROXY says: there it would be the proxy's own.
"""

import base64
import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

from env.errors import UsageError
from runtime.urls import in_url, is_loopback

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy, and the variable that names it. `url` has its user and password, `address` has not."""

    variable: str
    host: str
    port: int
    url: str = field(repr=False)

    @property
    def address(self) -> str:
        """As errors and logs may show it."""
        return f"http://{in_url(self.host, self.port)}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request to the proxy needs beside what it would need without."""
        credentials = basic_credentials(urlsplit(self.url))
        return {"Proxy-Authorization": credentials} if credentials else {}


def find_proxy(scheme: str, host: str, port: int | None = None) -> Proxy | None:
    """The proxy for a URL of `scheme`, http or https; None where the host is reached directly.

    Raises UsageError, which names the variable, for what is no HTTP proxy's address.
    """
    host = host.lower().rstrip(".")
    named = getproxies_environment()
    key = scheme if scheme in named else "all"
    if key not in named or is_loopback(host) or _is_exempt(host, port or DEFAULT_PORTS[scheme], named.get("no", "")):
        return None
    variable = f"{key}_proxy"
    return _read(variable if variable in os.environ else variable.upper(), named[key])


def is_on_loopback(value: str) -> bool:
    """Whether the proxy that a variable names listens on this machine's loopback."""
    try:
        return is_loopback(_split(value).hostname or "")
    except ValueError:
        return False


def basic_credentials(parts: SplitResult) -> str:
    """The user and password of a URL as a header has them (RFC 7617); empty for a URL without."""
    if parts.username is None:
        return ""
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(secret.encode()).decode()


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    return any(_matches(entry, host, port) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    name = entry.removeprefix("*").lstrip(".")
    return any(f".{known}".endswith(f".{name}") for known in (host, f"{host}:{port}", f"[{host}]:{port}"))


def _read(variable: str, value: str) -> Proxy:
    advice = "http://proxy.example:3128, or with a user: http://user:password@proxy.example:3128"
    try:
        parts = _split(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or set(host) & set(" \\/"):
        raise UsageError(variable, "holds no proxy's address", advice)
    if parts.scheme != "http":
        raise UsageError(variable, f"names a {parts.scheme} proxy, only http proxies can be used", advice)
    return Proxy(variable, host, port or DEFAULT_PORTS["http"], parts.geturl())


def _split(value: str) -> SplitResult:
    """A proxy's address, which needs no scheme."""
    return urlsplit(value.strip() if "://" in value else f"http://{value.strip()}")
