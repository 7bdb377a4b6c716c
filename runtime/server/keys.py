"""Who may ask: callers' keys, from a file of `name:key` lines."""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import KitError

VARIABLE = "ASR_KEYS_FILE"


@dataclass(frozen=True)
class Keys:
    """Digests of keys by their owners' names, so that no key can leak from here; none: everybody may ask."""

    digests: tuple[tuple[str, bytes], ...] = ()

    def owner(self, header: str) -> str | None:
        """The name whose key an `Authorization` header brings; None for no or a wrong key.

        All keys are compared, each in constant time, so that the time tells nothing about them.
        """
        scheme, _, key = header.partition(" ")
        given = _digest(key.strip())
        owners = [name for name, digest in self.digests if hmac.compare_digest(digest, given)]
        return owners[0] if owners and scheme.lower() == "bearer" else None


def read_keys(path: Path) -> Keys:
    """The keys in a file; empty lines and lines that begin with # count for nothing.

    Raises KitError for a file that cannot be read or holds no key, and for a line that is not `name:key`; a message
    never repeats a key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(VARIABLE, f"{path} cannot be read: {error}") from None
    found: dict[str, bytes] = {}
    for number, line in enumerate(lines, start=1):
        name, _, key = (part.strip() for part in line.partition(":"))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not name or not key or not key.isascii() or name in found:
            reason = "repeats a name" if name in found else "is not name:key in ASCII"
            raise KitError(VARIABLE, f"line {number} of {path} {reason}")
        found[name] = _digest(key)
    if not found:
        raise KitError(VARIABLE, f"{path} holds no key", "write one `name:key` a line, or unset it to need none")
    return Keys(tuple(found.items()))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
