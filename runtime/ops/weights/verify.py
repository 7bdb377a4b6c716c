"""`invoke verify-weights`, and what a server asks before it loads: are the weights what weights.lock says?"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from env.errors import KitError
from env.settings import DEMO, Settings
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.model.checkpoint import check_whole
from runtime.ops.weights import facts, lock
from runtime.ops.weights.choice import FACTS, differences, is_needed
from runtime.ops.weights.hubs import Remote
from runtime.ops.weights.lock import BY_HAND, Entry
from runtime.ops.weights.manifest import Manifest, OnBytes, Record, digest, unheard
from runtime.ops.weights.places import Place, place, shown

FETCH = "invoke fetch-weights"
TRUST = "invoke verify-weights --write-lock"


@dataclass(frozen=True)
class Row:
    """A file against the lock: `fault` is empty if nothing is wrong with it."""

    name: str
    expected: Record
    fault: str = ""


@dataclass(frozen=True)
class State:
    """What was found in `directory`. `verified`: nothing is at fault, by sums or by sizes, as was asked. `bytes` are
    those of all files together, as the lock says. `advice` is the next command where there are faults."""

    directory: Path
    faults: tuple[str, ...]
    advice: str
    verified: bool
    bytes: int


def state(settings: Settings, *, full: bool, on_bytes: OnBytes = unheard) -> State:
    """Compare the weights that the settings name with weights.lock: by sums if `full`, else by presence and size.

    The embedded demo model is part of the kit and needs no lock. Raises nothing for weights that are missing, or a
    lock that cannot be read: those are faults.
    """
    if settings.model == DEMO:
        size = sum(file.stat().st_size for file in DEMO_CHECKPOINT.iterdir() if file.is_file())
        return State(DEMO_CHECKPOINT, (), "", True, size)
    spot = place(settings, facts.load())
    return state_of(spot, full=full, on_bytes=on_bytes)


def state_of(spot: Place, *, full: bool, on_bytes: OnBytes = unheard) -> State:
    """The same for a place."""

    def faulty(*faults: str, advice: str, size: int = 0) -> State:
        return State(spot.directory, faults, advice, False, size)

    if not spot.directory.is_dir():
        what = "is a file, not a directory" if spot.directory.exists() else "no such directory"
        return faulty(what, advice=FETCH)
    try:
        entry = lock.read(spot.lock).get(spot.repo)
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
    return State(spot.directory, (), "", True, entry.size)


def require(settings: Settings, *, on_bytes: OnBytes = unheard) -> State:
    """The weights' state by sums, for a server that is about to load them.

    Raises KitError where anything is at fault, unless ASR_ALLOW_UNVERIFIED_WEIGHTS is set.
    """
    found = state(settings, full=True, on_bytes=on_bytes)
    if found.faults and not settings.allow_unverified_weights:
        advice = f"{found.advice}; or, to start all the same: ASR_ALLOW_UNVERIFIED_WEIGHTS=true"
        raise KitError(shown(found.directory), f"unverified weights: {'; '.join(found.faults)}", advice)
    return found


def compare(directory: Path, files: Manifest, *, full: bool, on_bytes: OnBytes = unheard) -> Iterator[Row]:
    """Every file of the lock against the directory, by sum if `full`."""
    for name, record in sorted(files.items()):
        yield Row(name, record, _fault(directory / name, record, full, on_bytes))


def size(directory: Path) -> int:
    """Bytes of the files in the directory that belong to the weights; 0 without one."""
    files = directory.iterdir() if directory.is_dir() else ()
    return sum(path.stat().st_size for path in files if is_needed(path.name) and path.is_file())


def extras(directory: Path, files: Manifest) -> list[str]:
    """What else is in the directory."""
    return sorted(path.name + "/" * path.is_dir() for path in directory.iterdir() if path.name not in files)


def record_by_hand(spot: Place, *, trusted: Manifest, on_bytes: OnBytes = unheard) -> Entry:
    """Write what is in the directory into weights.lock, after all checks that need no hub; `trusted` are the files
    that the kit knows.

    Raises KitError where the lock has the model already, the checkpoint is not whole, or a file is not the known one.
    """
    entries = lock.read(spot.lock)
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
    found = [Remote(name, record.size, record.sha256) for name, record in records.items()]
    if lines := differences(found, {FACTS: trusted}):
        advice = "if they are another model's, name it: ASR_HUB_REPO=owner/name"
        reason = f"holds other weights than {spot.repo}'s: {'; '.join(map(str, lines))}"
        raise KitError(shown(spot.directory), reason, advice)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry = Entry(BY_HAND, date=date, files=records)
    lock.write(spot.lock, {**entries, spot.repo: entry})
    return entry


def _fault(path: Path, record: Record, full: bool, on_bytes: OnBytes) -> str:
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
