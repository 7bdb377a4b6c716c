"""Callers' keys: one from a setting, or several from a file of `name:key` lines."""

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
KEY = re.compile(r"[!-~]+")  # what a header can carry
LIMIT = re.compile(r"(per_minute|at_once|sessions)=([1-9][0-9]{0,6})")
SUBPROTOCOL = "openai-insecure-api-key."  # OpenAI's; pages cannot set headers of a WebSocket

MOST = RateLimitItemPerMinute(10)  # wrong keys of one address
MOST_KNOWN = 10_000  # keys that were looked at, with the addresses that they came from

Given = tuple[str, bytes]  # address and digest

ADMIN_KEY_VARIABLE, ADMIN_KEY_FILE_VARIABLE = "ASR_ADMIN_KEY", "ASR_ADMIN_KEY_FILE"
# What proxies add beside X-Forwarded-*: the standards' own (RFC 7239, RFC 9110), and those of nginx's examples, Envoy,
# Akamai, Cloudflare and Azure.
FORWARDED = (
    *("forwarded", "via", "x-real-ip", "x-client-ip", "x-original-host", "x-original-forwarded-for"),
    *("x-envoy-external-address", "true-client-ip", "cf-connecting-ip", "x-arr-log-id"),
)
OLD_HTTP = "1.0"  # in which nginx asks where nothing else is set, and no client of ours does


@dataclass(frozen=True)
class Key:
    """A key: its owner, its digest, so that it cannot leak from here, and its own limits, None where the settings'
    count."""

    owner: str
    digest: bytes
    per_minute: int | None = None
    at_once: int | None = None
    sessions: int | None = None


@dataclass(frozen=True)
class Keys:
    """All there are; none: everybody may ask."""

    known: tuple[Key, ...] = ()

    def find(self, given: str) -> Key | None:
        """The key that was given, None if it is none of these.

        All are compared, each in constant time, so that the time tells nothing about them.
        """
        wanted = digest(given)
        found = [key for key in self.known if hmac.compare_digest(key.digest, wanted)]
        return found[0] if found else None


def unknown(words: str, code: str) -> ApiError:
    """The answer to whoever has no key, or a wrong one."""
    refusal = ApiError(401, words, code=code)
    refusal.headers["WWW-Authenticate"] = "Bearer"
    return refusal


def given_key(scope: Scope) -> str:
    """The key that a request brings, empty if it brings none: in `Authorization: Bearer KEY`, and for a WebSocket, also
    one that a proxy did not forward as such, as the subprotocol `openai-insecure-api-key.KEY`."""
    headers = Headers(scope=scope)
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    names = (name.strip() for name in headers.get("sec-websocket-protocol", "").split(","))
    offered = [name for name in names if name.startswith(SUBPROTOCOL)]
    return offered[0].removeprefix(SUBPROTOCOL) if offered else ""


def one_key(key: str, *, owner: str, variable: str) -> Key:
    """The key of a setting. Raises KitError, which does not repeat it, where no header could carry it."""
    if not KEY.fullmatch(key.strip()):
        raise KitError(variable, "is not all of visible ASCII characters, without spaces", "openssl rand -hex 24")
    return Key(owner, digest(key.strip()))


def read_key(path: Path, *, owner: str, variable: str, least: int) -> Key:
    """The one key in a file. Raises KitError for a file that cannot be read, is empty, or holds more than a key of
    `least` characters."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(variable, f"{path} cannot be read: {error}") from None
    if len(text.strip()) < least:
        raise KitError(variable, f"{path} holds no key of {least} characters or more", f"openssl rand -hex 24 > {path}")
    return one_key(text, owner=owner, variable=variable)


def read_keys(path: Path) -> Keys:
    """The keys in a file; empty lines and lines that begin with # count for nothing.

    Raises KitError for a file that cannot be read or holds no key, and for a line that is not `name:key` with or
    without `per_minute=N`, `at_once=N` and `sessions=N`; a message never repeats a key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(KEYS_FILE_VARIABLE, f"{path} cannot be read: {error}") from None
    found: list[Key] = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            key = _read(line, f"line {number} of {path}")
            if any(key.owner == other.owner or key.digest == other.digest for other in found):
                raise KitError(KEYS_FILE_VARIABLE, f"line {number} of {path} repeats a name or a key")
            found.append(key)
    if not found:
        raise KitError(
            KEYS_FILE_VARIABLE, f"{path} holds no key", "write one `name:key` a line, or unset it to need none"
        )
    return Keys(tuple(found))


def _read(line: str, where: str) -> Key:
    name, _, rest = (part.strip() for part in line.partition(":"))
    key, *words = rest.split() or [""]
    if not name or not KEY.fullmatch(key):
        raise KitError(KEYS_FILE_VARIABLE, f"{where} is not name:key in ASCII")
    limits: dict[str, int] = {}
    for word in words:
        limit = LIMIT.fullmatch(word)
        if not limit or limit[1] in limits:
            possible = "per_minute=N, at_once=N and sessions=N"
            raise KitError(KEYS_FILE_VARIABLE, f"{where} has more behind its key than {possible}, once each")
        limits[limit[1]] = int(limit[2])
    return Key(name, digest(key), **limits)


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class KeyAttempts:
    """The keys that addresses have given. To look again at one that an address has given before tells nobody anything:
    so a client whose key was right goes on while others behind its address guess, and one that goes on with an old key
    is no guesser."""

    def __init__(self) -> None:
        self._right: dict[Given, None] = {}  # to which whoever guesses adds nothing
        self._wrong: dict[Given, None] = {}

    def find(self, keys: Keys, scope: Scope) -> Key | None:
        """The key of a request, if it is one of these.

        Raises ApiError, 429, where its address gave too many wrong keys: before a new one is looked at, and instead of
        None for one that is known to be wrong.
        """
        secret = given_key(scope)
        if not secret:
            return None
        where = network(scope["client"][0])
        given = where, digest(secret)
        is_new = given not in self._right and given not in self._wrong
        if is_new and not self._window.test(MOST, "new", where):
            raise self._refusal("new", where)
        key = keys.find(secret)
        _remember(given, self._right if key else self._wrong)
        if key:
            return key
        if is_new:
            self._window.hit(MOST, "new", where)
        if not self._window.hit(MOST, "all", where):
            raise self._refusal("all", where)
        return None

    def _refusal(self, kind: str, where: str) -> ApiError:
        seconds = max(1, math.ceil(self._window.get_window_stats(MOST, kind, where).reset_time - time.time()))
        words = f"more than {MOST.amount} wrong keys came from your address within a minute; try again in {seconds} s"
        slowed = ApiError(429, words, code="too_many_wrong_keys")
        slowed.headers["Retry-After"] = str(seconds)
        return slowed

    @cached_property
    def _window(self) -> MovingWindowRateLimiter:
        return MovingWindowRateLimiter(MemoryStorage())


def _remember(given: Given, known: dict[Given, None]) -> None:
    """As the newest; the oldest is forgotten where there are many."""
    known.pop(given, None)
    known[given] = None
    if len(known) > MOST_KNOWN:
        del known[next(iter(known))]


@dataclass
class Access:
    """Callers' keys and limits, the operators' key, the origins of pages, and the server's names, which count where
    there are no keys: those of the settings, and this machine's own. Keys can be replaced while the server answers."""

    keys: Keys = field(default_factory=Keys)
    admin: Keys = field(default_factory=Keys)
    per_minute: int | None = None
    at_once: int | None = None
    sessions: int | None = None
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    own_names: Container[str] = frozenset()

    def key(self, scope: Scope, guesses: KeyAttempts) -> Key | None:
        """The key of a request, None where none is needed. Raises ApiError, 401, for none or a wrong one, and 429 for
        one of too many."""
        if not self.keys.known:
            return None
        key = guesses.find(self.keys, scope)
        if key is None:
            needed = "a key is needed: Authorization: Bearer KEY"
            raise unknown("the key is none of this server's" if given_key(scope) else needed, "invalid_api_key")
        return key

    def is_revoked(self, key: Key | None) -> bool:
        """Whether a key that a request came with is none of this server's any more."""
        return key is not None and key.digest not in {known.digest for known in self.keys.known}

    def caller(self, scope: Scope, key: Key | None) -> Caller:
        """Who a request counts for: the key's owner, or the address it comes from."""
        if key is None:
            return Caller(network(scope["client"][0]), self.per_minute, self.at_once, self.sessions)
        per_minute, at_once = key.per_minute or self.per_minute, key.at_once or self.at_once
        return Caller(key.owner, per_minute, at_once, key.sessions or key.at_once or self.sessions)


def check_operator(scope: Scope, admin: Keys, guesses: KeyAttempts) -> None:
    """Raises ApiError, 401 or 403, for an admin call that is nobody's who may make it, and 429 for a wrong key of too
    many."""
    if admin.known:
        if guesses.find(admin, scope) is None:
            variables = f"{ADMIN_KEY_VARIABLE} or {ADMIN_KEY_FILE_VARIABLE}"
            words = f"admin calls need the key of {variables}: Authorization: Bearer KEY"
            raise unknown(words, "invalid_admin_key")
    elif reason := _elsewhere(scope):
        words = f"without {ADMIN_KEY_VARIABLE} admin calls are answered to this machine alone, and {reason}"
        raise ApiError(403, words, code="not_local")


def is_forwarded(headers: Headers) -> bool:
    """Whether a request says that it comes through a proxy."""
    return any(name in FORWARDED or name.startswith("x-forwarded-") for name in headers)


def _elsewhere(scope: Scope) -> str:
    """Why a call may not be this machine's own; empty if it is."""
    headers = Headers(scope=scope)
    address, _ = scope["client"]
    if not is_loopback(address):
        return f"this one comes from {address}"
    if is_forwarded(headers) or scope["http_version"] == OLD_HTTP:
        return "this one comes through a proxy"
    # A page that the operator looks at can call this machine too; with a name of its own for it, unnoticed by browsers.
    if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
        return "this one comes from a page in a browser"
    host = headers.get("host", "")
    if not is_loopback(hostname(host)):
        return f"this one is for {host or 'no host'}, not for localhost"
    return ""
