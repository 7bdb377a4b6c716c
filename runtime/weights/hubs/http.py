"""What the answers of any hub mean: bytes to go on with, something that will pass, or something that will not."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

from env.errors import KitError
from runtime import dns
from runtime.weights.hubs import LIBRARY, READ, TIMEOUT, Body, RemoteFile, Repository, RepositoryListing
from runtime.weights.lockfile import Manifest

PIECE = 1 << 20  # bytes a read, at most
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
CHECK = "check ASR_HUB_REPO, ASR_HUB_REVISION and ASR_HUB_ENDPOINT"
NAME_TIMEOUT = 8.0  # seconds: with the start of the command, no more than ten until it fails
NO_WAY = (
    "check the address (ASR_HUB_ENDPOINT) and the name server (/etc/resolv.conf); behind a proxy: HTTPS_PROXY; without "
    "internet: a mirror, or invoke bundle on a host that has them"
)


class TransientError(Exception):
    """What may pass: `reason` in words; `wait` is how many seconds the hub asks for, None if it does not say."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait


class RangeError(TransientError):
    """The file does not reach as far as what was fetched of it: that is of no use."""


class UnresolvedError(TransientError):
    """A name that cannot be resolved: a wrong one, or a name server that is away."""


def check_name(subject: str, url: str) -> None:
    """Look up who will be connected to: the server of `url`, or the proxy on the way there.

    Raises KitError within seconds where the name cannot be resolved: the hubs' clients would wait for minutes.
    """
    proxy = select_proxy(url, get_environ_proxies(url))
    host = urlsplit(prepend_scheme_if_needed(proxy, "http") if proxy else url).hostname
    if host and (words := dns.failure(host, seconds=NAME_TIMEOUT)):
        party = f"the proxy {host}" if proxy else host
        raise KitError(subject, f"the name of {party} cannot be resolved: {words}", NO_WAY)


def headers(start: int, **more: str) -> dict[str, str]:
    """What to ask for a file's bytes from `start` on, as they are."""
    ranged = {"Range": f"bytes={start}-"} if start else {}
    return {"Accept-Encoding": "identity", **ranged, **more}


def refusal(source: Repository, status: int, retry_after: str | float | None = None, *, what: str = "") -> Exception:
    """What an answer with that status means; `what` was asked for, if not the repository itself."""
    subject = f"{what} of {source}" if what else str(source)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return RangeError("the file is shorter than what was fetched of it")
    if status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientError(f"the hub answers {status}{_phrase(status)}", _seconds(retry_after))
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if source.secret:
            advice = "check ASR_HUB_TOKEN, and that its account may read the model"
            return KitError(subject, f"the hub refuses the token ({status})", advice)
        advice = f"set ASR_HUB_TOKEN if the model is private or asks for consent; else {CHECK}"
        return KitError(subject, f"the hub wants a token ({status})", advice)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        at = f" at revision {source.revision}" if source.revision else ""
        token = "" if source.secret else "; a private model needs ASR_HUB_TOKEN"
        return KitError(subject, f"the hub does not have it{at} ({status})", CHECK + token)
    return KitError(subject, f"the hub answers {status}{_phrase(status)}", CHECK)


def untrusted(source: Repository, error: requests.exceptions.SSLError) -> KitError:
    """An https address whose certificate nobody vouches for, or that is none."""
    advice = "REQUESTS_CA_BUNDLE names a file with the certificates of a mirror's own authority"
    return KitError(str(source), f"no trusted connection: {cause(error)}", advice)


@contextmanager
def told(source: Repository) -> Iterator[None]:
    """Failures of requests in the kit's words. Addresses in them stay out: they may be signed."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise untrusted(source, error) from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.TooManyRedirects) as error:
        raise KitError(str(source), f"no address to go to: {type(error).__name__}", CHECK) from None
    except requests.exceptions.JSONDecodeError:
        raise KitError(str(source), "answers with something that is not a hub's", CHECK) from None
    except requests.Timeout:
        raise TransientError(f"no answer for {READ:.0f} s") from None
    except requests.RequestException as error:
        raise failed(error) from None


def failed(error: BaseException) -> TransientError:
    """A connection that was not made, as an error of requests tells it."""
    for link in _chain(error):
        if isinstance(link, urllib3.exceptions.NameResolutionError):
            name = re.search("Failed to resolve '([^']*)'", str(link))
            return UnresolvedError(f"the name {name[1] if name else ''} cannot be resolved: {cause(error)}")
    return TransientError(f"the connection failed: {cause(error)}")


def other_contents(source: Repository, name: str, found: str, listed: str) -> KitError:
    """A file that is not what the list says: the hub's own, which is then at fault, or, where the kit holds a mirror to
    a list, that one."""
    if not source.listed_by:
        advice = "try again later, or another hub: ASR_HUB"
        return KitError(f"{name} of {source}", f"{found}, but the hub's own list of files says {listed}", advice)
    advice = (
        f"if the mirror shall have the weights of {source.listed_by}: copy {name} there again; if it has others that "
        "are meant: put the weights.lock that was handed over with them in place"
    )
    return KitError(f"{name} of {source}", f"contradicts {source.listed_by}: {found}, expected {listed}", advice)


def body(source: Repository, response: requests.Response, file: RemoteFile, start: int) -> Body:
    """The bytes that a response holds, after a request for those from `start` on.

    Raises what `refusal` says, TransientError for a range that was not asked for, and KitError for a file of another
    size than is listed.
    """
    if not response.ok:
        raise refusal(source, response.status_code, response.headers.get("Retry-After"), what=file.name)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise KitError(f"{file.name} of {source}", f"is sent in the encoding {encoding}, which was not asked for")
    size: int | None
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        found = RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise RangeError("the hub sends another part of the file than was asked for")
        size = int(found[2]) if found[2] != "*" else None
    else:
        start = 0
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
    if size is not None and size != file.size:
        raise other_contents(source, file.name, f"holds {size} bytes", f"{file.size}")
    return Body(start, _pieces(response))


def cause(error: BaseException) -> str:
    """What is at the bottom of an error of requests, in the system's words if it has any. The error's own text shows
    addresses, which may be signed."""
    links = list(_chain(error))
    words = [link.strerror for link in links if isinstance(link, OSError) and link.strerror]
    return words[-1] if words else type(links[-1]).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from, one after the other."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """What has come, as it comes: `iter_content` would wait for whole pieces, and lose the last if it is cut off."""
    try:
        while piece := response.raw.read1(PIECE):
            yield piece
    except urllib3.exceptions.HTTPError as error:
        raise TransientError(f"the connection broke off: {cause(error)}") from None


def _phrase(status: int) -> str:
    return f" {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else ""


def _seconds(retry_after: str | float | None) -> float | None:
    """What Retry-After asks for, in seconds: a number or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(str(retry_after))
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(timezone.utc) - datetime.now(timezone.utc)).total_seconds())


class Mirror:
    """A folder on a web server."""

    def __init__(self, source: Repository, manifest: Manifest) -> None:
        self.source, self._manifest = source, manifest

    def files(self) -> RepositoryListing:
        """What the manifest says: a web server does not list."""
        records = self._manifest.items()
        return RepositoryListing(
            "", tuple(RemoteFile(name, record.size, sha256=record.sha256) for name, record in records)
        )

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        """The file's bytes."""
        url = f"{self.source.endpoint}/{self.source.repo}/{quote(file.name)}"
        known = {"Authorization": f"Bearer {self.source.secret}"} if self.source.secret else {}
        with opened(self.source, url, file, start, **known) as found:
            yield found


@contextmanager
def opened(source: Repository, url: str, file: RemoteFile, start: int, **more: str) -> Iterator[Body]:
    """The bytes of `file` from `start` on, as a plain GET of `url` answers; `more` headers may hold a secret, which is
    not sent on to another host."""
    sent = headers(start, **{"User-Agent": LIBRARY, **more})
    with told(source):
        response = requests.get(url, headers=sent, stream=True, timeout=TIMEOUT)
    with closing(response):
        yield body(source, response, file, start)
