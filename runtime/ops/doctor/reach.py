"""Whether a server answers over HTTP, and at which step it does not: name, connection, TLS, HTTP.

With the client that fetches weights, and so with the same proxies and certificates; or directly, as vLLM is asked.
"""

import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runtime import dns
from runtime.host.probe import Answer
from runtime.urls import authorities, shown

if TYPE_CHECKING:
    import requests

PATIENCE = 10.0  # seconds to connect, and to answer; a name server takes its own time


def reach(url: str, *, seconds: float = PATIENCE, directly: bool = False) -> Answer:
    """The status that a GET of `url` gets; any below 500 is an answer, everything else a fault that names the step.
    Raises UsageError where REQUESTS_CA_BUNDLE is no file, if it goes there directly."""
    client = session(directly=directly)
    proxy = _proxy(url, client)
    host = urlsplit(proxy or url).hostname
    if host and (words := dns.failure(host, seconds=seconds)):
        return Answer("", f"DNS: the name of {_party(url, proxy)} cannot be resolved: {words}")
    outcome: list[Answer] = []
    # A name that leads to many addresses, or a redirect, may take any time; a thread can be left behind.
    thread = threading.Thread(target=lambda: outcome.append(_get(client, url, seconds)), daemon=True)
    thread.start()
    thread.join(3 * seconds)
    return outcome[0] if outcome else Answer("", f"no answer within {3 * seconds:g} s")


def session(*, directly: bool) -> "requests.Session":
    """A client; `directly`: one that knows no proxies, and no credentials of the operator's. Raises UsageError where
    REQUESTS_CA_BUNDLE is no file."""
    import requests

    made = requests.Session()
    if directly:
        made.trust_env, made.verify = False, authorities() or True
    return made


def _get(client: "requests.Session", url: str, seconds: float) -> Answer:
    import requests

    try:
        with client, client.get(url, timeout=seconds, stream=True) as answer:
            if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return Answer("", f"HTTP: answers {answer.status_code} {answer.reason}".rstrip())
            return Answer(str(answer.status_code))
    except requests.RequestException as error:
        return Answer("", _explain(error, _party(url, _proxy(url, client))))


def _proxy(url: str, client: "requests.Session") -> str:
    """The proxy on the way to `url`; empty if there is none."""
    from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

    found = select_proxy(url, get_environ_proxies(url)) if client.trust_env else None
    return prepend_scheme_if_needed(found, "http") if found else ""


def _party(url: str, proxy: str) -> str:
    return f"the proxy {shown(proxy)}" if proxy else str(urlsplit(url).hostname)


def _explain(error: Exception, party: str) -> str:
    """At which step it failed. Errors of requests wrap those of urllib3, and these the system's."""
    import requests
    from urllib3.exceptions import NameResolutionError

    chain = list(_chain(error))
    last = next((str(link) for link in reversed(chain) if str(link)), type(error).__name__)
    if any(isinstance(link, NameResolutionError | socket.gaierror) for link in chain):
        return f"DNS: the name of {party} cannot be resolved"
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS: {last}"
    if isinstance(error, requests.Timeout):
        return f"connection: no answer from {party} in time"
    if isinstance(error, requests.ConnectionError):
        told = next((link.strerror for link in reversed(chain) if isinstance(link, OSError) and link.strerror), last)
        return f"connection: {party}: {told}"
    return f"HTTP: {last}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it was made of, the system's own last."""
    while error is not None:
        yield error
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
