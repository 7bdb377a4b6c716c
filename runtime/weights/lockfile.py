"""Files with their sizes and sums: what a lock says, what the kit knows, what a directory holds."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from env.errors import KitError
from runtime.files import write_whole

PIECE = 1 << 20  # bytes a read
OnBytes = Callable[[int], None]
MOST_BLOB = 64 << 20  # bytes; hubs keep larger files outside git, and know their sha256

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEADER = """\
# What the weights must be. Written by the first `invoke fetch-weights` or by `invoke verify-weights --write-lock`,
# compared by every later one and before a server starts. Hand it over with the weights. To accept other weights,
# delete their tables here and fetch again.
"""
ORIGIN = ("hub", "endpoint", "revision", "commit", "date")
BY_HAND = "copied by hand"  # the hub of weights that no hub vouched for


@dataclass(frozen=True)
class LockedFile:
    """A file's `size` in bytes and the `sha256` of its contents, in lower-case hex."""

    size: int
    sha256: str

    def __str__(self) -> str:
        return f"sha256 {self.sha256} ({self.size} bytes)"


Manifest = Mapping[str, LockedFile]


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
    def record(self) -> LockedFile:
        """Size and sum of what was taken in."""
        return LockedFile(self.position, self._sha256.hexdigest())

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


def record_from(entry: object, *, where: str) -> LockedFile:
    """The record that a TOML table describes. Raises KitError, naming `where`, for anything else."""
    size, sha256 = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    if not isinstance(size, int) or not isinstance(sha256, str) or len(sha256) != 64:
        raise KitError(where, 'is no file\'s record, expected { size = bytes, sha256 = "64 hex digits" }')
    return LockedFile(size, sha256.lower())


@dataclass(frozen=True)
class LockedModel:
    """One model: `revision` as it was asked for, `commit` as the hub resolved it (empty where it does not tell), `date`
    of the first fetch (UTC, ISO 8601)."""

    hub: str
    endpoint: str = ""
    revision: str = ""
    commit: str = ""
    date: str = ""
    files: Manifest = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(record.size for record in self.files.values())


def read(path: Path) -> dict[str, LockedModel]:
    """The entries by repository; none where there is no such file. Raises KitError for one that cannot be read."""
    advice = "restore it from where it was handed over, or delete it and invoke fetch-weights"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KitError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise KitError(str(path), f"is no TOML that can be read: {error}", advice) from None
    models = tables.get("models", {})
    if not isinstance(models, dict):
        raise KitError(str(path), "has no tables under models", advice)
    return {repo: _entry(path, repo, table) for repo, table in models.items()}


def write(path: Path, entries: Mapping[str, LockedModel]) -> None:
    """Write the whole lock, one line a file. Raises KitError where it cannot be written."""
    lines = [HEADER]
    for repo, entry in sorted(entries.items()):
        lines.append(f"[models.{_quoted(repo)}]")
        lines += [f"{key} = {_quoted(getattr(entry, key))}" for key in ORIGIN]
        lines.append(f"\n[models.{_quoted(repo)}.files]")
        for name, record in sorted(entry.files.items()):
            lines.append(f"{_quoted(name)} = {{ size = {record.size}, sha256 = {_quoted(record.sha256)} }}")
        lines.append("")
    write_whole(path, "\n".join(lines))


def _entry(path: Path, repo: str, table: Any) -> LockedModel:
    where = f"{path}, {repo}"
    files = table.get("files") if isinstance(table, dict) else None
    if not isinstance(files, dict) or not files:
        raise KitError(where, "has no files", "delete its tables and invoke fetch-weights")
    records: dict[str, LockedFile] = {
        name: record_from(entry, where=f"{where}, {name}") for name, entry in files.items()
    }
    return LockedModel(**{key: str(table.get(key, "")) for key in ORIGIN}, files=records)


def _quoted(text: str) -> str:
    """A TOML string: JSON's, whose escapes TOML shares."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
