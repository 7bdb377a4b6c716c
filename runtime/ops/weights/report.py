"""`invoke verify-weights`: every file in a table."""

import sys
from collections.abc import Iterable

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from env.errors import KitError
from env.settings import Settings
from runtime import stdio
from runtime.ops.weights import facts, lock, verify
from runtime.ops.weights.places import DEMO, place, shown
from runtime.ops.weights.verify import Row
from runtime.progress import meter
from runtime.tables import console, table


def verify_weights(settings: Settings, *, write_lock: bool) -> None:
    """Sum all files again and print what came of it; first record them, if `write_lock`.

    Raises KitError where anything is at fault.
    """
    known = facts.load()
    spot = place(settings, known)
    if settings.model == DEMO and not spot.directory.exists():
        print("The embedded demo model is part of the kit: there is nothing to verify")
        return
    if write_lock:
        model = known.models.get(spot.repo)
        trusted = model.files if model and settings.hub_revision is None else {}
        with meter(f"Summing {shown(spot.directory)}", verify.size(spot.directory)) as advance:
            entry = verify.record_by_hand(spot, trusted=trusted, on_bytes=advance)
        sure = sum(entry.files.get(name) == record for name, record in trusted.items())
        print(f"Recorded in {shown(spot.lock)}: {len(entry.files)} files, {decimal(entry.size)}.")
        print(f"{sure} of them are as the kit knows them; the others are trusted as they were found.")
        return
    quick = verify.state_of(spot, full=False)
    entry_now = lock.read(spot.lock).get(spot.repo) if quick.bytes else None
    if entry_now is None:
        raise KitError(shown(spot.directory), "; ".join(quick.faults), quick.advice)
    with meter(f"Verifying {shown(spot.directory)}", entry_now.size) as advance:
        rows = list(verify.compare(spot.directory, entry_now.files, full=True, on_bytes=advance))
    console().print(_table(rows))
    if others := verify.extras(spot.directory, entry_now.files):
        words = f"Not in {shown(spot.lock)}, and not looked at: {', '.join(others)}"
        print(stdio.for_reading(words, sys.stderr), file=sys.stderr)
    faults = [f"{row.name}: {row.fault}" for row in rows if row.fault]
    if faults:
        raise KitError(shown(spot.directory), "; ".join(faults), "invoke fetch-weights, which fetches these again")
    print(f"{shown(spot.directory)}: {len(rows)} files, {decimal(entry_now.size)}, all as {shown(spot.lock)} says")


def _table(rows: Iterable[Row]) -> Table:
    grid = table("File", "Bytes", "sha256", "")
    for row in rows:
        mark = f"[bold red]{row.fault.partition(':')[0].upper()}" if row.fault else "[green]same"
        grid.add_row(escape(row.name), str(row.expected.size), f"{row.expected.sha256[:16]}…", mark)
    return grid
