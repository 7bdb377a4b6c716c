"""What a server says of itself."""

import contextlib
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

TIMEOUT = 5.0  # seconds for an answer, each


@dataclass(frozen=True)
class Health:
    """`status` is starting, ready, restarting or draining; `stage` says more. Both are `starting` without an answer."""

    status: str = "starting"
    stage: str = "starting"


def ask(url: str) -> Health:
    """The health of the server at `url`, which is on this machine: no proxy is asked."""
    with contextlib.suppress(OSError, HTTPException):
        try:
            with opener().open(f"{url}/health/ready", timeout=TIMEOUT) as answer:
                return _read(answer.read())
        except urllib.error.HTTPError as refusal:  # 503: not ready
            with refusal:
                return _read(refusal.read())
    return Health()


def opener() -> urllib.request.OpenerDirector:
    """Opens URLs of servers on this machine: through no proxy, and whatever their certificates say. Those are for the
    name that clients use, not for this machine's addresses, and often signed by an authority that is not known here."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting))


def _read(body: bytes) -> Health:
    try:
        found = json.loads(body)
        return Health(str(found["status"]), str(found["stage"]))
    except (ValueError, LookupError, TypeError):  # something else answers
        return Health()
