"""Callers' keys: one from a setting, or several from a file of `name:key` lines."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Scope

from env.errors import KitError
from runtime.server.errors import ApiError

VARIABLE = "ASR_KEYS_FILE"
KEY = re.compile(r"[!-~]+")  # what a header can carry
LIMIT = re.compile(r"(per_minute|at_once|sessions)=([1-9][0-9]{0,6})")
SUBPROTOCOL = "openai-insecure-api-key."  # OpenAI's; pages cannot set headers of a WebSocket


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
        raise KitError(VARIABLE, f"{path} cannot be read: {error}") from None
    found: list[Key] = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            key = _read(line, f"line {number} of {path}")
            if any(key.owner == other.owner or key.digest == other.digest for other in found):
                raise KitError(VARIABLE, f"line {number} of {path} repeats a name or a key")
            found.append(key)
    if not found:
        raise KitError(VARIABLE, f"{path} holds no key", "write one `name:key` a line, or unset it to need none")
    return Keys(tuple(found))


def _read(line: str, where: str) -> Key:
    name, _, rest = (part.strip() for part in line.partition(":"))
    key, *words = rest.split() or [""]
    if not name or not KEY.fullmatch(key):
        raise KitError(VARIABLE, f"{where} is not name:key in ASCII")
    limits: dict[str, int] = {}
    for word in words:
        limit = LIMIT.fullmatch(word)
        if not limit or limit[1] in limits:
            possible = "per_minute=N, at_once=N and sessions=N"
            raise KitError(VARIABLE, f"{where} has more behind its key than {possible}, once each")
        limits[limit[1]] = int(limit[2])
    return Key(name, digest(key), **limits)


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
