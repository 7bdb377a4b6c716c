"""What a server says of itself."""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from env.errors import KitError
from env.settings import Settings
from env.sources import under_project
from runtime.urls import url

UNRESPONSIVE = "unresponsive"
HEALTH_TIMEOUT = 5.0  # seconds for an answer, each

ADMIN_TIMEOUT = 10.0  # seconds for an answer; a device that is busy gives its memory back late


@dataclass(frozen=True)
class Health:
    """`status` is starting, ready, restarting or draining; `stage` says more. Both are `starting` where nobody listens
    yet, and `status` is unresponsive where nobody answers in time."""

    status: str = "starting"
    stage: str = "starting"


def ask_health(url: str, *, timeout: float = HEALTH_TIMEOUT) -> Health:
    """The health of the server at `url`, which is on this machine: no proxy is asked."""
    return find_health(url, timeout=timeout) or Health()


def find_health(url: str, *, timeout: float = HEALTH_TIMEOUT) -> Health | None:
    """The same; None where nobody answers, or what is no server of the kit."""
    try:
        try:
            with opener().open(f"{url}/health/ready", timeout=timeout) as answer:
                return _parse_health(answer.read())
        except urllib.error.HTTPError as refusal:  # 503: not ready
            with refusal:
                return _parse_health(refusal.read())
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


def _parse_health(body: bytes) -> Health | None:
    try:
        found = json.loads(body)
        return Health(str(found["status"]), str(found["stage"]))
    except (ValueError, LookupError, TypeError):  # something else answers
        return None


def call_server(settings: Settings, method: str, path: str, *, timeout: float = ADMIN_TIMEOUT) -> dict[str, Any] | None:
    """What the server on the settings' port answers within `timeout` seconds; None where nothing listens there.

    Raises KitError where it refuses, does not answer, or is no server of the kit.
    """
    where = url(settings) + path
    request = urllib.request.Request(where, method=method)
    if key := _admin_key(settings):
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with opener().open(request, timeout=timeout) as answer:
            return _parse_object(where, answer.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            told = _parse_object(where, refusal.read()).get("error")
        reason = told["message"] if isinstance(told, dict) and "message" in told else f"answers {refusal.code}"
        advice = "set ASR_ADMIN_KEY or ASR_ADMIN_KEY_FILE as for the server" if refusal.code in (401, 403) else ""
        raise KitError(where, reason, advice) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ConnectionRefusedError):
            return None
        raise KitError(where, f"does not answer: {reason}", "invoke status") from None


def _admin_key(settings: Settings) -> str:
    """The admin key, empty where none is set."""
    if settings.admin_key:
        return settings.admin_key.get_secret_value()
    if not settings.admin_key_file:
        return ""
    path = under_project(settings.admin_key_file)
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KitError("ASR_ADMIN_KEY_FILE", f"{path} cannot be read: {error}", "run this as who may read it") from None


def _parse_object(where: str, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise KitError(where, "answers what no server of the kit does", "set ASR_PORT to the server's")
    return found
