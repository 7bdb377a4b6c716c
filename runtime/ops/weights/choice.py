"""Which of a hub's files are the weights, and whether they are the expected ones."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

from env.errors import KitError
from runtime.ops.weights.hubs import Remote, Source
from runtime.ops.weights.manifest import Manifest, Record

# What the model's classes read, and what its licence wants to go with it. Everything else stays at the hub: pictures,
# model cards (which change without the weights), other formats, code.
NEEDED = ("*.safetensors", "*.json", "*.txt", "*.jinja", "LICENSE*", "NOTICE*")
NEEDLESS = ("configuration.json",)  # ModelScope's own description
LOCK, FACTS = "weights.lock", "env/weights.toml"  # who expects something of the files
CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True)
class Difference:
    """A file that is not what `who` expects; `found` None: it is not there."""

    name: str
    who: str
    expected: Record
    found: Record | None

    def __str__(self) -> str:
        return f"{self.name}: {self.who} says {self.expected}, found {self.found or 'none'}"


@dataclass(frozen=True)
class Choice:
    """Files to be had, and the names of those that are left."""

    wanted: tuple[Remote, ...]
    skipped: tuple[str, ...]


def choose(files: Iterable[Remote], *, source: Source, locked: Manifest) -> Choice:
    """The files of the hub's list that belong to the weights: those of the lock, where it has any.

    Raises KitError for a list that names no files of a checkpoint, names one twice, or names one that would lie
    outside the directory.
    """
    files = tuple(files)
    for file in files:
        if not _harmless(file.name):
            reason = f"lists the file {file.name!r}, which would not lie in the model's directory"
            raise KitError(str(source), reason, "do not use this hub, and tell who runs it")
    wanted = tuple(file for file in files if (file.name in locked if locked else is_needed(file.name)))
    if not wanted:
        raise KitError(str(source), f"lists no file of a checkpoint ({len(files)} others)", "check ASR_HUB_REPO")
    if len({file.name for file in wanted}) < len(wanted):
        raise KitError(str(source), "lists a file twice", "try another hub: ASR_HUB")
    chosen = {file.name for file in wanted}
    return Choice(wanted, tuple(sorted(file.name for file in files if file.name not in chosen)))


def is_needed(name: str) -> bool:
    """Whether a file of that name belongs to the weights."""
    return "/" not in name and name not in NEEDLESS and any(fnmatch(name, pattern) for pattern in NEEDED)


def differences(found: Iterable[Remote], expected: Mapping[str, Manifest]) -> list[Difference]:
    """Files that are not what somebody expects; `expected` are files by who expects them."""
    return [
        Difference(file.name, who, record, Record(file.size, file.sha256 or "unknown"))
        for file in found
        for who, manifest in expected.items()
        if (record := manifest.get(file.name)) and (record.size != file.size or file.sha256 not in ("", record.sha256))
    ]


def absent(found: Iterable[Remote], locked: Manifest) -> list[Difference]:
    """Files of the lock that the hub does not list."""
    listed = {file.name for file in found}
    return [Difference(name, LOCK, record, None) for name, record in sorted(locked.items()) if name not in listed]


def _harmless(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not CONTROL.search(name)
