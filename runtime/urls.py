"""Names and addresses of hosts: how URLs write them, and which of them are this machine's own."""

import functools
import ipaddress
import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from env.errors import UsageError
from env.field import variable
from env.settings import Settings

LOCALHOST = "localhost"
IPV6_PREFIX = 64  # bits; the others of an address are its host's own to choose, and to change at each request

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"
LOOPBACKS = ("127.0.0.1", "::1")

TRUST = "REQUESTS_CA_BUNDLE"  # the variable of the client that fetches weights, so that one names a house's authority
PLACE = re.compile(r"([\w.-]+|\[[\da-f:.]+\])(:\d+)?", re.IGNORECASE)  # host, or an IPv6 address, and port
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # in OpenSSL's errors
HOW_TO_TRUST = f"{TRUST}=FILE names a certificate to trust; for a container, put it into docker/certificates"


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


def vllm_servers(settings: Settings) -> list[str]:
    """Each server's address, without the /v1 that OpenAI's clients want at its end; none if ASR_VLLM_URL is not set.
    Raises UsageError where one cannot be used."""
    urls = [_address(url) for url in settings.vllm_url.split(",")] if settings.vllm_url else []
    for url in urls:
        if urls.count(url) > 1:
            raise UsageError(variable("vllm_url"), f"names {url} twice", "name each server once")
    return urls


def authorities() -> str | None:
    """The file of certificates to trust instead of the system's, None if none is named. Raises UsageError where it
    cannot be read."""
    path = os.environ.get(TRUST)
    if path and not Path(path).is_file():
        raise UsageError(TRUST, f"{path} is no file", "name a file of certificates, PEM")
    return path or None


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(variable("vllm_url"), f"{redact_url(url)}: no address: {error}", "http://host:port") from None
    if parts.query or parts.fragment or not PLACE.fullmatch(parts.netloc):
        advice = f"put the key into {variable('vllm_key')}" if parts.username is not None else "http://host:port"
        raise UsageError(variable("vllm_url"), f"{redact_url(url)}: expected host and port, no more", advice)
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def url(settings: Settings) -> str:
    """Where the server answers, as seen from this host."""
    scheme = "https" if settings.tls_cert_file else "http"
    return f"{scheme}://{local_name(settings.host)}:{settings.port}"


def redact_url(url: str) -> str:
    """The URL as errors and logs may show it: without credentials, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "…" if parts.query else "", ""))
