"""What a server says of itself."""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

UNRESPONSIVE = "unresponsive"
TIMEOUT = 5.0  # seconds for an answer, each


@dataclass(frozen=True)
class Health:
    """`status` is starting, ready, restarting or draining; `stage` says more. Both are `starting` where nobody listens
    yet, and `status` is unresponsive where nobody answers in time."""

    status: str = "starting"
    stage: str = "starting"


def ask(url: str, *, timeout: float = TIMEOUT) -> Health:
    """The health of the server at `url`, which is on this machine: no proxy is asked."""
    return heard(url, timeout=timeout) or Health()


def heard(url: str, *, timeout: float = TIMEOUT) -> Health | None:
    """The same; None where nobody answers, or what is no server of the kit."""
    try:
        try:
            with opener().open(f"{url}/health/ready", timeout=timeout) as answer:
                return _read(answer.read())
        except urllib.error.HTTPError as refusal:  # 503: not ready
            with refusal:
                return _read(refusal.read())
    except (OSError, HTTPException) as error:
        if isinstance(getattr(error, "reason", error), TimeoutError):
            return Health(UNRESPONSIVE, f"does not answer within {timeout:g} s")
        return None


def opener() -> urllib.request.OpenerDirector:
    """Opens URLs of servers on this machine: through no proxy, and whatever their certificates say. Those are for the
    name that clients use, not for this machine's addresses, and often signed by an authority that is not known here."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting))


def _read(body: bytes) -> Health | None:
    try:
        found = json.loads(body)
        return Health(str(found["status"]), str(found["stage"]))
    except (ValueError, LookupError, TypeError):  # something else answers
        return None
