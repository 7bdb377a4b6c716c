"""Authentication: callers' keys, from a setting or from a file of `name:key` lines, and the key of admin calls."""

import hashlib
import hmac
import math
import re
import time
from collections.abc import Container
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import Scope

from env.errors import KitError
from runtime.server.errors import ApiError
from runtime.server.rate_limit import Caller
from runtime.urls import hostname, is_loopback, network

KEYS_FILE_VARIABLE = "ASR_KEYS_FILE"
KEY_PATTERN = re.compile(r"[!-~]+")  # what a header can carry
KEY_LIMIT_PATTERN = re.compile(r"(per_minute|at_once|sessions)=([1-9][0-9]{0,6})")
KEY_SUBPROTOCOL = "openai-insecure-api-key."  # OpenAI's; pages cannot set headers of a WebSocket

WRONG_KEY_LIMIT = RateLimitItemPerMinute(10)  # of one address
MAX_REMEMBERED_KEYS = 10_000  # keys that were looked at, with the addresses that they came from

_Attempt = tuple[str, bytes]  # address and digest

ADMIN_KEY_VARIABLE, ADMIN_KEY_FILE_VARIABLE = "ASR_ADMIN_KEY", "ASR_ADMIN_KEY_FILE"
# What proxies add beside X-Forwarded-*: the standards' own (RFC 7239, RFC 9110), and those of nginx's examples, Envoy,
# Akamai, Cloudflare and Azure.
PROXY_HEADERS = (
    *("forwarded", "via", "x-real-ip", "x-client-ip", "x-original-host", "x-original-forwarded-for"),
    *("x-envoy-external-address", "true-client-ip", "cf-connecting-ip", "x-arr-log-id"),
)
PROXY_HTTP_VERSION = "1.0"  # in which nginx asks where nothing else is set, and no client of ours does


@dataclass(frozen=True)
class Key:
    """A key's owner, its digest, so that the key itself cannot leak from here, and its own limits; None: the settings'
    limits apply."""

    owner: str
    digest: bytes
    per_minute: int | None = None
    at_once: int | None = None
    sessions: int | None = None


@dataclass(frozen=True)
class Keys:
    """All valid keys. Without any, no key is needed."""

    known: tuple[Key, ...] = ()

    def find(self, given: str) -> Key | None:
        """Return the matching key, or None.

        Each key is compared in constant time, and all of them, so that the time reveals nothing about them.
        """
        expected = digest(given)
        found = [key for key in self.known if hmac.compare_digest(key.digest, expected)]
        return found[0] if found else None


def unauthorized(message: str, code: str) -> ApiError:
    """The 401 for a missing or wrong key."""
    refusal = ApiError(401, message, code=code)
    refusal.headers["WWW-Authenticate"] = "Bearer"
    return refusal


def key_of_request(scope: Scope) -> str:
    """Return the key that a request brings, or "": from `Authorization: Bearer KEY`, or for a WebSocket, whose headers
    a page cannot set, from the subprotocol `openai-insecure-api-key.KEY`."""
    headers = Headers(scope=scope)
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    names = (name.strip() for name in headers.get("sec-websocket-protocol", "").split(","))
    offered = [name for name in names if name.startswith(KEY_SUBPROTOCOL)]
    return offered[0].removeprefix(KEY_SUBPROTOCOL) if offered else ""


def make_key(key: str, *, owner: str, variable: str) -> Key:
    """Make a Key from a setting's value. Raises KitError, which does not repeat the key, for characters that no header
    can carry."""
    if not KEY_PATTERN.fullmatch(key.strip()):
        raise KitError(variable, "is not all of visible ASCII characters, without spaces", "openssl rand -hex 24")
    return Key(owner, digest(key.strip()))


def read_key(path: Path, *, owner: str, variable: str, min_length: int) -> Key:
    """Read the only key of a file. Raises KitError for a file that cannot be read, or holds anything but one key of at
    least `min_length` characters."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(variable, f"{path} cannot be read: {error}") from None
    if len(text.strip()) < min_length:
        raise KitError(
            variable, f"{path} holds no key of {min_length} characters or more", f"openssl rand -hex 24 > {path}"
        )
    return make_key(text, owner=owner, variable=variable)


def read_keys(path: Path) -> Keys:
    """Read the keys of a file, skipping empty lines and lines that begin with #.

    Raises KitError for a file that cannot be read or holds no key, and for a line that is not `name:key`, optionally
    followed by `per_minute=N`, `at_once=N` and `sessions=N`. No message repeats a key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(KEYS_FILE_VARIABLE, f"{path} cannot be read: {error}") from None
    found: list[Key] = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            key = _parse_line(line, f"line {number} of {path}")
            if any(key.owner == other.owner or key.digest == other.digest for other in found):
                raise KitError(KEYS_FILE_VARIABLE, f"line {number} of {path} repeats a name or a key")
            found.append(key)
    if not found:
        raise KitError(
            KEYS_FILE_VARIABLE, f"{path} holds no key", "write one `name:key` a line, or unset it to need none"
        )
    return Keys(tuple(found))


def _parse_line(line: str, where: str) -> Key:
    name, _, rest = (part.strip() for part in line.partition(":"))
    key, *message = rest.split() or [""]
    if not name or not KEY_PATTERN.fullmatch(key):
        raise KitError(KEYS_FILE_VARIABLE, f"{where} is not name:key in ASCII")
    limits: dict[str, int] = {}
    for word in message:
        limit = KEY_LIMIT_PATTERN.fullmatch(word)
        if not limit or limit[1] in limits:
            possible = "per_minute=N, at_once=N and sessions=N"
            raise KitError(KEYS_FILE_VARIABLE, f"{where} has more behind its key than {possible}, once each")
        limits[limit[1]] = int(limit[2])
    return Key(name, digest(key), **limits)


def digest(key: str) -> bytes:
    """SHA-256 of a key; the key itself is not kept."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class KeyAttempts:
    """Limits how many wrong keys an address may try. A key that the address has tried before reveals nothing new: so a
    client with a valid key goes on while others behind its address guess, and a client that keeps sending an old key is
    not taken for one that guesses."""

    def __init__(self) -> None:
        self._valid: dict[_Attempt, None] = {}  # to which whoever guesses adds nothing
        self._invalid: dict[_Attempt, None] = {}

    def find(self, keys: Keys, scope: Scope) -> Key | None:
        """Return the matching key of a request, or None.

        Raises ApiError, 429, once its address has sent too many wrong keys: for a new key before it is compared, for a
        known wrong one in place of None.
        """
        key_text = key_of_request(scope)
        if not key_text:
            return None
        address = network(scope["client"][0])
        given = address, digest(key_text)
        is_new = given not in self._valid and given not in self._invalid
        if is_new and not self._limiter.test(WRONG_KEY_LIMIT, "new", address):
            raise self._refusal("new", address)
        key = keys.find(key_text)
        _remember(given, self._valid if key else self._invalid)
        if key:
            return key
        if is_new:
            self._limiter.hit(WRONG_KEY_LIMIT, "new", address)
        if not self._limiter.hit(WRONG_KEY_LIMIT, "all", address):
            raise self._refusal("all", address)
        return None

    def _refusal(self, kind: str, address: str) -> ApiError:
        window = self._limiter.get_window_stats(WRONG_KEY_LIMIT, kind, address)
        seconds = max(1, math.ceil(window.reset_time - time.time()))
        most = WRONG_KEY_LIMIT.amount
        message = f"more than {most} wrong keys came from your address within a minute; try again in {seconds} s"
        refusal = ApiError(429, message, code="too_many_wrong_keys")
        refusal.headers["Retry-After"] = str(seconds)
        return refusal

    @cached_property
    def _limiter(self) -> MovingWindowRateLimiter:
        return MovingWindowRateLimiter(MemoryStorage())


def _remember(given: _Attempt, known: dict[_Attempt, None]) -> None:
    """Move an attempt to the newest end; forget the oldest beyond MAX_REMEMBERED_KEYS."""
    known.pop(given, None)
    known[given] = None
    if len(known) > MAX_REMEMBERED_KEYS:
        del known[next(iter(known))]


@dataclass
class Access:
    """Who may use the server: callers' keys and limits, the admin key, the origins of web pages and, where no keys are
    needed, the host names that are answered: those of the settings and this machine's own. The keys can be replaced
    while the server runs."""

    keys: Keys = field(default_factory=Keys)
    admin: Keys = field(default_factory=Keys)
    per_minute: int | None = None
    at_once: int | None = None
    sessions: int | None = None
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    own_names: Container[str] = frozenset()

    def key(self, scope: Scope, key_attempts: KeyAttempts) -> Key | None:
        """Authenticate a request; None where no key is needed. Raises ApiError: 401 for a missing or wrong key, 429
        after too many wrong ones."""
        if not self.keys.known:
            return None
        key = key_attempts.find(self.keys, scope)
        if key is None:
            needed = "a key is needed: Authorization: Bearer KEY"
            raise unauthorized(
                "the key is none of this server's" if key_of_request(scope) else needed, "invalid_api_key"
            )
        return key

    def is_revoked(self, key: Key | None) -> bool:
        """Whether the key that a request came with is no longer valid."""
        return key is not None and key.digest not in {known.digest for known in self.keys.known}

    def caller(self, scope: Scope, key: Key | None) -> Caller:
        """Whom a request counts for: the key's owner, or the address."""
        if key is None:
            return Caller(network(scope["client"][0]), self.per_minute, self.at_once, self.sessions)
        per_minute, at_once = key.per_minute or self.per_minute, key.at_once or self.at_once
        return Caller(key.owner, per_minute, at_once, key.sessions or key.at_once or self.sessions)


def check_admin(scope: Scope, admin: Keys, key_attempts: KeyAttempts) -> None:
    """Check that an admin call is allowed. Raises ApiError: 401 or 403 if not, 429 after too many wrong keys."""
    if admin.known:
        if key_attempts.find(admin, scope) is None:
            variables = f"{ADMIN_KEY_VARIABLE} or {ADMIN_KEY_FILE_VARIABLE}"
            message = f"admin calls need the key of {variables}: Authorization: Bearer KEY"
            raise unauthorized(message, "invalid_admin_key")
    elif reason := _why_not_local(scope):
        message = f"without {ADMIN_KEY_VARIABLE} admin calls are answered to this machine alone, and {reason}"
        raise ApiError(403, message, code="not_local")


def is_forwarded(headers: Headers) -> bool:
    """Whether a proxy's headers say that it forwarded this request."""
    return any(name in PROXY_HEADERS or name.startswith("x-forwarded-") for name in headers)


def _why_not_local(scope: Scope) -> str:
    """Return why a call may come from elsewhere than this machine; empty if it does not."""
    headers = Headers(scope=scope)
    address, _ = scope["client"]
    if not is_loopback(address):
        return f"this one comes from {address}"
    if is_forwarded(headers) or scope["http_version"] == PROXY_HTTP_VERSION:
        return "this one comes through a proxy"
    # A page that the operator looks at can call this machine too; with a name of its own for it, unnoticed by browsers.
    if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
        return "this one comes from a page in a browser"
    host = headers.get("host", "")
    if not is_loopback(hostname(host)):
        return f"this one is for {host or 'no host'}, not for localhost"
    return ""
