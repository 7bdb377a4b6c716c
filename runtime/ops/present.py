"""Tables for people; rich measures Chinese characters as two columns wide, so that columns stay straight."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from env.describe import Row
from env.stacks import Difference

WIDTH = 160  # columns, where output goes to a file or pipe; rich would assume 80 and fold the texts


@dataclass(frozen=True)
class Mark:
    """How a state is shown."""

    word: str
    style: str


SEVERITIES = {"same": Mark("same", "green"), "harmless": Mark("harmless", "yellow"), "matters": Mark("MATTERS", "red")}


def console() -> Console:
    """Standard output, wide enough for the tables where it is no terminal."""
    out = Console()
    return out if out.is_terminal else Console(width=WIDTH)


def settings(rows: Iterable[Row]) -> Table:
    """Every setting in force."""
    shown = table("Setting", "Value", "Unit", "From")
    for row in rows:
        shown.add_row(row.variable, row.value or "(not set)", row.unit, row.origin)
    return shown


def differences(stack: str, rows: Iterable[Difference]) -> Table:
    """Installed against pinned."""
    shown = table(f"Stack {stack}", "Pinned", "Installed", "Difference", "Why pinned")
    for row in rows:
        mark = SEVERITIES[row.severity]
        shown.add_row(
            row.name, row.pinned or "(none)", row.installed or "(none)", f"[{mark.style}]{mark.word}", row.why
        )
    return shown


def table(*columns: str) -> Table:
    """An empty table in the style that all of them have."""
    empty = Table(show_edge=False, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        empty.add_column(column, overflow="fold")
    return empty
