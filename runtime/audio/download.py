"""A file from an http(s) URL that somebody else chose: bounded in bytes and time, and never from inside the network.

Without a proxy the address is checked after the name is resolved, and the connection goes to that very address, so that
a name server cannot answer twice differently. The standard library's client lets its caller open the connection, and so
the deadline hold for every single read.

A proxy (see `runtime.proxies`) resolves the name itself. What this host can judge it still judges, for the URL and for
each redirect: an address, and a name that this host can resolve, must be public. A name that this host cannot resolve,
as is usual behind such a proxy, is left to the proxy, whose rules decide then.
"""

import http.client
import io
import ipaddress
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from env.errors import KitError, UsageError
from runtime.proxies import DEFAULT_PORTS, Proxy, basic_credentials, find_proxy
from runtime.urls import Address, in_url, redact_url

MOST_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
PIECE = 1 << 16  # bytes a read

SIZE_ADVICE = "ASR_URL_MAX_MIB sets the limit"
PRIVATE_ADVICE = "ASR_ALLOW_PRIVATE_URLS=true permits such addresses"
STORAGE_ADVICE = "make room where temporary files go, or set TMPDIR to a directory with room"

# IPv6 addresses in here lead to the IPv4 address in their last 32 bits (RFC 6052).
NAT64 = ipaddress.ip_network("64:ff9b::/96")
UNICAST = ipaddress.ip_network("2000::/3")  # all that IANA has given to the internet of IPv6
# Not of the internet either, although releases of Python differ about them: IANA's special-purpose registries; and the
# address at which Azure's hosts talk to their guests.
SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)

# A name that a proxy may be asked for although it cannot be resolved here. What ends in a number is an address, however
# odd its spelling (WHATWG's URL standard, "ends in a number").
NAME = re.compile(r"([a-z0-9_-]+\.)*[a-z][a-z0-9_-]*\.?", re.IGNORECASE)

log = logging.getLogger(__name__)


class FetchError(KitError):
    """A URL that could not be had, shown without the secrets in it, and the reason."""


class StorageError(KitError):
    """What was fetched could not be kept."""


class _HopError(Exception):
    """Why a hop is given up, in words that follow its URL, and what helps."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice


def is_public(address: Address) -> bool:
    """Whether `address` lies in the public internet: not private, loopback, link-local, shared, reserved, multicast."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_public(inner)
        if address not in UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in SPECIAL)


def allow_any(_: Address) -> bool:
    """Permits every address, for hosts that are meant to reach into their own network."""
    return True


def fetch(
    url: str, into: IO[bytes], *, seconds: float, most_bytes: int, permitted: Callable[[Address], bool] = is_public
) -> None:
    """Write to `into` the body that a GET of `url` answers, of at most `most_bytes` bytes and within `seconds`
    altogether.

    Follows up to 5 redirects; `permitted` judges the address of every hop. Credentials in a URL become basic
    authentication for that URL. Only a name server that keeps silent can take longer, as long as the system's resolver
    waits. Raises FetchError for anything but a complete answer with status 200, StorageError where `into` takes no
    more.
    """
    deadline = time.monotonic() + seconds
    hop, redirects = url, 0
    proxy: Proxy | None = None
    try:
        while True:
            if redirects > MOST_REDIRECTS:
                raise _HopError(f"comes after {MOST_REDIRECTS} redirects, the most that are followed")
            proxy = _proxy(hop)
            location = _get(urlsplit(hop), proxy, into, deadline, most_bytes, permitted)
            if location is None:
                return
            hop, redirects, proxy = urljoin(hop, location), redirects + 1, None
    except (_HopError, OSError, http.client.HTTPException, ValueError) as error:
        reason, advice = _explain(error, proxy, seconds)
        where = "" if hop == url else f"redirects to {redact_url(hop)}, which "
        raise FetchError(redact_url(url), where + reason, advice) from error


def _explain(error: Exception, proxy: Proxy | None, seconds: float) -> tuple[str, str]:
    """Why a hop is given up, and what helps."""
    through, check = (f" through the proxy {proxy.address}", f"check {proxy.variable}") if proxy else ("", "")
    if isinstance(error, TimeoutError):
        advice = "ASR_URL_TIMEOUT_SECONDS sets the limit"
        return f"took longer{through} than the limit of {seconds:g} s", f"{advice}; {check}" if check else advice
    if isinstance(error, _HopError):
        return error.reason, error.advice
    return f"cannot be fetched{through}: {getattr(error, 'strerror', None) or error}", check


def _proxy(url: str) -> Proxy | None:
    """The proxy that leads to the URL, None for none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _HopError("is not an http or https URL with a host")
    try:
        return find_proxy(parts.scheme, _host(parts), parts.port)
    except UsageError as error:
        raise _HopError(f"cannot be fetched: {error.subject} {error.reason}", error.advice) from None


def _get(
    parts: SplitResult,
    proxy: Proxy | None,
    into: IO[bytes],
    deadline: float,
    most_bytes: int,
    permitted: Callable[[Address], bool],
) -> str | None:
    """Write the body of the answer, unless it redirects: then the place."""
    target, headers = _target(parts), _headers(parts)
    if proxy:
        _judge(parts, permitted)
        if parts.scheme == "http":
            target, headers = f"http://{headers['Host']}{target}", headers | proxy.headers
    with (
        _open(parts, proxy, deadline, permitted) as sock,
        _ask(sock, deadline, "GET", target, headers) as response,
    ):
        location = response.headers["Location"]
        if response.status in REDIRECTS and location:
            return location.encode("latin-1").decode("utf-8", "replace")
        if response.status != HTTPStatus.OK:
            raise _refused(response, proxy)
        _copy(response, into, most_bytes)
        return None


def _ask(
    sock: socket.socket, deadline: float, method: str, target: str, headers: dict[str, str]
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(headers["Host"])
    connection.sock = _Wire(sock, deadline)
    connection.request(method, target, headers=headers)
    return connection.getresponse()


def _refused(response: http.client.HTTPResponse, proxy: Proxy | None) -> _HopError:
    """For an answer without the file, which behind a proxy may be the proxy's own."""
    answer = f"{response.status} {response.reason}".rstrip()
    if not proxy:
        return _HopError(f"answers {answer}")
    if response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        reason = f"cannot be fetched: the proxy {proxy.address} asks for a user and a password, or for others"
        return _HopError(f"{reason} ({answer})", f"{proxy.variable}=http://user:password@…")
    return _HopError(f"cannot be fetched through the proxy {proxy.address}: {answer}", f"check {proxy.variable}")


def _copy(response: http.client.HTTPResponse, into: IO[bytes], most_bytes: int) -> None:
    declared = response.length
    if declared is not None and declared > most_bytes:
        raise _HopError(f"holds {declared} bytes, the limit is {most_bytes}", SIZE_ADVICE)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _HopError(f"is sent in the encoding {response.headers['Content-Encoding']}, which was not asked for")
    copied = 0
    while piece := response.read(PIECE):
        copied += len(piece)
        if copied > most_bytes:
            raise _HopError(f"holds more bytes than the limit of {most_bytes}", SIZE_ADVICE)
        try:
            into.write(piece)
        except OSError as error:
            raise StorageError("what was fetched", f"cannot be stored: {error.strerror}", STORAGE_ADVICE) from error
    if declared is not None and copied < declared:
        raise _HopError(f"broke off after {copied} of {declared} bytes")


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").encode("idna").decode()


def _target(parts: SplitResult) -> str:
    """Path and query with everything escaped that is not yet."""
    path, query = (quote(part, safe="/%:@!$&'()*+,;=~?[]") for part in (parts.path or "/", parts.query))
    return f"{path}?{query}" if query else path


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"Host": in_url(_host(parts), parts.port or None), "User-Agent": "qwen3-asr-kit", "Accept": "*/*"}
    credentials = basic_credentials(parts)
    return headers | {"Authorization": credentials} if credentials else headers


def _port(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS[parts.scheme]


def _judge(parts: SplitResult, permitted: Callable[[Address], bool]) -> None:
    """Refuse what leads to an address that is not permitted, as far as this host can tell: the proxy connects.

    One such address among several is enough, as nobody here chooses which of them the proxy takes.
    """
    if permitted is allow_any:
        return
    host = _host(parts)
    try:
        found = socket.getaddrinfo(host, _port(parts), type=socket.SOCK_STREAM)
    except socket.gaierror:
        if NAME.fullmatch(host):
            return
        raise
    for address in (entry[4][0] for entry in found):
        if not permitted(ipaddress.ip_address(address)):
            raise _not_public(address)


def _not_public(address: str | int) -> _HopError:
    """The operator's log has the address; who sent the URL does not learn what names mean inside the network."""
    log.info("a URL is refused: it leads to the address %s", address)
    return _HopError("leads to an address that is not public", PRIVATE_ADVICE)


def _open(
    parts: SplitResult, proxy: Proxy | None, deadline: float, permitted: Callable[[Address], bool]
) -> socket.socket:
    """A connection to one of the host's permitted addresses, or to the proxy; encrypted, to the host, for https."""
    host, port = (proxy.host, proxy.port) if proxy else (_host(parts), _port(parts))
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # The proxy may be anywhere: the operator chose it.
    entries = [entry for entry in found if proxy or permitted(ipaddress.ip_address(entry[4][0]))]
    if not entries:
        raise _not_public(found[0][4][0])
    plain = _connect(entries, deadline)
    if parts.scheme == "http":
        return plain
    with plain:  # which the encrypted socket takes over, so that nothing is left to close
        if proxy:
            _tunnel(plain, parts, proxy, deadline)
        plain.settimeout(_time_left(deadline))
        return ssl.create_default_context().wrap_socket(plain, server_hostname=_host(parts))


def _tunnel(plain: socket.socket, parts: SplitResult, proxy: Proxy, deadline: float) -> None:
    """Have the proxy connect to the host (RFC 9110, 9.3.6)."""
    target = in_url(_host(parts), _port(parts))
    with _ask(plain, deadline, "CONNECT", target, {"Host": target, **proxy.headers}) as response:
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            raise _refused(response, proxy)


def _connect(entries: Sequence[Any], deadline: float) -> socket.socket:
    """A connection to the first of the addresses, as `getaddrinfo` has them, that answers."""
    failure: OSError = TimeoutError()
    for attempts_left, (family, kind, protocol, _, address) in zip(range(len(entries), 0, -1), entries, strict=True):
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(_time_left(deadline) / attempts_left)
            plain.connect(address)
        except OSError as error:
            plain.close()
            failure = error
            continue
        return plain
    raise failure


def _time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Wire(io.RawIOBase):
    """What http.client needs of a socket, with the deadline holding for all reads and writes together."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock, self.deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.sock.settimeout(_time_left(self.deadline))
        return self.sock.recv_into(buffer)

    def sendall(self, data: Any) -> None:
        self.sock.settimeout(_time_left(self.deadline))
        self.sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Nothing: the socket outlives the reader, and who opened it closes it."""
