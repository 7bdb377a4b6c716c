"""What a server says of itself."""

import contextlib
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

TIMEOUT = 5.0  # seconds for an answer, each


@dataclass(frozen=True)
class Health:
    """`status` is starting, ready or draining; `stage` says more in words. Both are `starting` without an answer."""

    status: str = "starting"
    stage: str = "starting"


def ask(url: str) -> Health:
    """The health of the server at `url`, which is on this machine: no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, HTTPException):
        try:
            with opener.open(f"{url}/health/ready", timeout=TIMEOUT) as answer:
                return _read(answer.read())
        except urllib.error.HTTPError as refusal:  # 503: not ready
            with refusal:
                return _read(refusal.read())
    return Health()


def _read(body: bytes) -> Health:
    try:
        found = json.loads(body)
        return Health(str(found["status"]), str(found["stage"]))
    except (ValueError, LookupError, TypeError):  # something else answers
        return Health()
