"""Files with their sizes and sums: what a lock says, what the kit knows, what a directory holds."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError

PIECE = 1 << 20  # bytes a read
OnBytes = Callable[[int], None]
MOST_BLOB = 64 << 20  # bytes; hubs keep larger files outside git, and know their sha256


@dataclass(frozen=True)
class Record:
    """A file's `size` in bytes and the `sha256` of its contents, in lower-case hex."""

    size: int
    sha256: str

    def __str__(self) -> str:
        return f"sha256 {self.sha256} ({self.size} bytes)"


Manifest = Mapping[str, Record]


def unheard(_: int) -> None:
    """Nobody wants to know how far it is."""


class Digest:
    """The sums of a file's first `position` bytes, of `size` in all.

    `blob` is git's name for the contents (its object format), which is all that some hubs tell of small files.
    """

    def __init__(self, size: int) -> None:
        self.size, self.position = size, 0
        self._sha256 = hashlib.sha256()
        self._blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, piece: bytes | memoryview) -> None:
        """Take in what follows."""
        self.position += len(piece)
        self._sha256.update(piece)
        if self.size <= MOST_BLOB:
            self._blob.update(piece)

    @property
    def record(self) -> Record:
        """Size and sum of what was taken in."""
        return Record(self.position, self._sha256.hexdigest())

    @property
    def blob(self) -> str:
        """The name that git gives the whole file; of no use for files above `MOST_BLOB`."""
        return self._blob.hexdigest()


def digest(path: Path, *, size: int, first: int | None = None, on_bytes: OnBytes = unheard) -> Digest:
    """The sums of a file of `size` bytes, or of its `first` bytes; `on_bytes` hears of each piece read.

    Raises OSError where it cannot be read.
    """
    found = Digest(size)
    left = size if first is None else first
    buffer = memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        while left and (count := file.readinto(buffer[: min(left, PIECE)])):
            found.update(buffer[:count])
            on_bytes(count)
            left -= count
    return found


def record_from(entry: object, *, where: str) -> Record:
    """The record that a TOML table describes. Raises KitError, naming `where`, for anything else."""
    size, sha256 = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    if not isinstance(size, int) or not isinstance(sha256, str) or len(sha256) != 64:
        raise KitError(where, 'is no file\'s record, expected { size = bytes, sha256 = "64 hex digits" }')
    return Record(size, sha256.lower())
