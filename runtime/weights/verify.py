"""`invoke verify-weights`, and what a server asks before it loads: are the weights what weights.lock says?"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from env.errors import KitError
from env.settings import DEMO, Settings
from runtime import stdio
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.model.checkpoint import check_whole
from runtime.progress import BYTES, progress_bar
from runtime.tables import console, table
from runtime.weights import catalog, lockfile
from runtime.weights.catalog import ModelLocation, place, shown
from runtime.weights.hubs import RemoteFile, Repository
from runtime.weights.lockfile import BY_HAND, LockedFile, LockedModel, Manifest, OnBytes, digest, unheard

# What the model's classes read, and what its licence wants to go with it. Everything else stays at the hub: pictures,
# model cards (which change without the weights), other formats, code.
NEEDED = ("*.safetensors", "*.json", "*.txt", "*.jinja", "LICENSE*", "NOTICE*")
NEEDLESS = ("configuration.json",)  # ModelScope's own description
LOCK, FACTS = "weights.lock", "env/weights.toml"  # who expects something of the files
CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")

FETCH = "invoke fetch-weights"
TRUST = "invoke verify-weights --write-lock"


@dataclass(frozen=True)
class FileDifference:
    """A file that is not what `who` expects; `found` None: it is not there."""

    name: str
    who: str
    expected: LockedFile
    found: LockedFile | None

    def __str__(self) -> str:
        return f"{self.name}: {self.who} says {self.expected}, found {self.found or 'none'}"


@dataclass(frozen=True)
class Choice:
    """Files to be had, and the names of those that are left."""

    wanted: tuple[RemoteFile, ...]
    skipped: tuple[str, ...]


def choose(files: Iterable[RemoteFile], *, source: Repository, locked: Manifest) -> Choice:
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


def differences(found: Iterable[RemoteFile], expected: Mapping[str, Manifest]) -> list[FileDifference]:
    """Files that are not what somebody expects; `expected` are files by who expects them."""
    return [
        FileDifference(file.name, who, record, LockedFile(file.size, file.sha256 or "unknown"))
        for file in found
        for who, manifest in expected.items()
        if (record := manifest.get(file.name)) and (record.size != file.size or file.sha256 not in ("", record.sha256))
    ]


def absent(found: Iterable[RemoteFile], locked: Manifest) -> list[FileDifference]:
    """Files of the lock that the hub does not list."""
    listed = {file.name for file in found}
    return [FileDifference(name, LOCK, record, None) for name, record in sorted(locked.items()) if name not in listed]


def _harmless(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not CONTROL.search(name)


@dataclass(frozen=True)
class FileRow:
    """A file against the lock: `fault` is empty if nothing is wrong with it."""

    name: str
    expected: LockedFile
    fault: str = ""


@dataclass(frozen=True)
class WeightsState:
    """What was found in `directory`. `verified`: nothing is at fault, by sums or by sizes, as was asked. `bytes` are
    those of all files together, as the lock says. `advice` is the next command where there are faults."""

    directory: Path
    faults: tuple[str, ...]
    advice: str
    verified: bool
    bytes: int


def state(settings: Settings, *, full: bool, on_bytes: OnBytes = unheard) -> WeightsState:
    """Compare the weights that the settings name with weights.lock: by sums if `full`, else by presence and size.

    The embedded demo model is part of the kit and needs no lock. Raises nothing for weights that are missing, or a
    lock that cannot be read: those are faults.
    """
    if settings.model == DEMO:
        size = sum(file.stat().st_size for file in DEMO_CHECKPOINT.iterdir() if file.is_file())
        return WeightsState(DEMO_CHECKPOINT, (), "", True, size)
    spot = place(settings, catalog.load())
    return state_of(spot, full=full, on_bytes=on_bytes)


def state_of(spot: ModelLocation, *, full: bool, on_bytes: OnBytes = unheard) -> WeightsState:
    """The same for a place."""

    def faulty(*faults: str, advice: str, size: int = 0) -> WeightsState:
        return WeightsState(spot.directory, faults, advice, False, size)

    if not spot.directory.is_dir():
        what = "is a file, not a directory" if spot.directory.exists() else "no such directory"
        return faulty(what, advice=FETCH)
    try:
        entry = lockfile.read(spot.lock).get(spot.repo)
    except KitError as error:
        return faulty(f"{error.subject}: {error.reason}", advice=error.advice)
    if entry is None:
        why = f"has no {spot.repo}" if spot.lock.exists() else "no such file"
        advice = f"{FETCH}, which compares them with the hub; or, to trust them as they are: {TRUST}"
        return faulty(f"{shown(spot.lock)}: {why}, so nothing tells what the weights must be", advice=advice)
    rows = compare(spot.directory, entry.files, full=full, on_bytes=on_bytes)
    faults = tuple(f"{row.name}: {row.fault}" for row in rows if row.fault)
    if faults:
        return faulty(*faults, advice=f"{FETCH}, which fetches these again", size=entry.size)
    return WeightsState(spot.directory, (), "", True, entry.size)


def require(settings: Settings, *, on_bytes: OnBytes = unheard) -> WeightsState:
    """The weights' state by sums, for a server that is about to load them.

    Raises KitError where anything is at fault, unless ASR_ALLOW_UNVERIFIED_WEIGHTS is set.
    """
    found = state(settings, full=True, on_bytes=on_bytes)
    if found.faults and not settings.allow_unverified_weights:
        advice = f"{found.advice}; or, to start all the same: ASR_ALLOW_UNVERIFIED_WEIGHTS=true"
        raise KitError(shown(found.directory), f"unverified weights: {'; '.join(found.faults)}", advice)
    return found


def compare(directory: Path, files: Manifest, *, full: bool, on_bytes: OnBytes = unheard) -> Iterator[FileRow]:
    """Every file of the lock against the directory, by sum if `full`."""
    for name, record in sorted(files.items()):
        yield FileRow(name, record, _fault(directory / name, record, full, on_bytes))


def size(directory: Path) -> int:
    """Bytes of the files in the directory that belong to the weights; 0 without one."""
    files = directory.iterdir() if directory.is_dir() else ()
    return sum(path.stat().st_size for path in files if is_needed(path.name) and path.is_file())


def extras(directory: Path, files: Manifest) -> list[str]:
    """What else is in the directory."""
    return sorted(path.name + "/" * path.is_dir() for path in directory.iterdir() if path.name not in files)


def record_by_hand(spot: ModelLocation, *, trusted: Manifest, on_bytes: OnBytes = unheard) -> LockedModel:
    """Write what is in the directory into weights.lock, after all checks that need no hub; `trusted` are the files
    that the kit knows.

    Raises KitError where the lock has the model already, the checkpoint is not whole, or a file is not the known one.
    """
    entries = lockfile.read(spot.lock)
    if spot.repo in entries:
        advice = f"delete its tables in {shown(spot.lock)} if these weights are to take its place"
        raise KitError(spot.repo, f"is in {shown(spot.lock)} already", advice)
    check_whole(spot.directory)
    records = {}
    for path in sorted(spot.directory.iterdir()):
        if is_needed(path.name) and path.is_file():
            try:
                records[path.name] = digest(path, size=path.stat().st_size, on_bytes=on_bytes).record
            except OSError as error:
                raise KitError(shown(path), f"cannot be read: {error.strerror}") from None
    found = [RemoteFile(name, record.size, record.sha256) for name, record in records.items()]
    if lines := differences(found, {FACTS: trusted}):
        advice = "if they are another model's, name it: ASR_HUB_REPO=owner/name"
        reason = f"holds other weights than {spot.repo}'s: {'; '.join(map(str, lines))}"
        raise KitError(shown(spot.directory), reason, advice)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry = LockedModel(BY_HAND, date=date, files=records)
    lockfile.write(spot.lock, {**entries, spot.repo: entry})
    return entry


def _fault(path: Path, record: LockedFile, full: bool, on_bytes: OnBytes) -> str:
    """What is wrong with a file, empty if nothing is."""
    try:
        if not path.exists():
            return "missing"
        if not path.is_file():
            return "is no file"
        size = path.stat().st_size
        if size != record.size:
            return f"{'truncated' if size < record.size else 'changed'}: {size} bytes, expected {record.size}"
        if not full:
            return ""
        found = digest(path, size=size, on_bytes=on_bytes).record
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found == record else f"changed: sha256 {found.sha256}, expected {record.sha256}"


def verify_weights(settings: Settings, *, write_lock: bool) -> None:
    """Sum all files again and print what came of it; first record them, if `write_lock`.

    Raises KitError where anything is at fault.
    """
    known = catalog.load()
    spot = place(settings, known)
    if settings.model == DEMO and not spot.directory.exists():
        print("The embedded demo model is part of the kit: there is nothing to verify")
        return
    if write_lock:
        model = known.models.get(spot.repo)
        trusted = model.files if model and settings.hub_revision is None else {}
        with progress_bar(f"Summing {shown(spot.directory)}", size(spot.directory), unit=BYTES) as bar:
            entry = record_by_hand(spot, trusted=trusted, on_bytes=bar.advance)
        sure = sum(entry.files.get(name) == record for name, record in trusted.items())
        print(f"Recorded in {shown(spot.lock)}: {len(entry.files)} files, {decimal(entry.size)}.")
        print(f"{sure} of them are as the kit knows them; the others are trusted as they were found.")
        return
    quick = state_of(spot, full=False)
    entry_now = lockfile.read(spot.lock).get(spot.repo) if quick.bytes else None
    if entry_now is None:
        raise KitError(shown(spot.directory), "; ".join(quick.faults), quick.advice)
    with progress_bar(f"Verifying {shown(spot.directory)}", entry_now.size, unit=BYTES) as bar:
        rows = list(compare(spot.directory, entry_now.files, full=True, on_bytes=bar.advance))
    console().print(_table(rows))
    if others := extras(spot.directory, entry_now.files):
        words = f"Not in {shown(spot.lock)}, and not looked at: {', '.join(others)}"
        print(stdio.for_reading(words, sys.stderr), file=sys.stderr)
    faults = [f"{row.name}: {row.fault}" for row in rows if row.fault]
    if faults:
        raise KitError(shown(spot.directory), "; ".join(faults), "invoke fetch-weights, which fetches these again")
    print(f"{shown(spot.directory)}: {len(rows)} files, {decimal(entry_now.size)}, all as {shown(spot.lock)} says")


def _table(rows: Iterable[FileRow]) -> Table:
    grid = table("File", "Bytes", "sha256", "")
    for row in rows:
        mark = f"[bold red]{row.fault.partition(':')[0].upper()}" if row.fault else "[green]same"
        grid.add_row(escape(row.name), str(row.expected.size), f"{row.expected.sha256[:16]}…", mark)
    return grid
