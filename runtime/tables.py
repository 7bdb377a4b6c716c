"""Tables for people; rich measures Chinese characters as two columns wide, so that columns stay straight."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from env.reference import SettingRow
from env.stacks import PackageDifference
from runtime.redaction import escaped

WIDTH = 160  # columns, where output goes to a file or pipe; rich would assume 80 and fold the texts


@dataclass(frozen=True)
class Severity:
    """How a state is shown."""

    word: str
    style: str


SEVERITIES = {
    "same": Severity("same", "green"),
    "harmless": Severity("harmless", "yellow"),
    "matters": Severity("MATTERS", "red"),
}


class _Console(Console):
    """Shows control characters in what it prints."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_shown, objects), **options)


class _Table(Table):
    """Shows control characters in its cells: file names and transcripts may hold them."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(_shown, cells), **options)


def console() -> Console:
    """Standard output, wide enough for the tables where it is no terminal."""
    out = _Console()
    return out if out.is_terminal else _Console(width=WIDTH)


def settings(rows: Iterable[SettingRow]) -> Table:
    """Every setting in force."""
    shown = table("Setting", "Value", "Unit", "From")
    for row in rows:
        shown.add_row(row.variable, row.value or "(not set)", row.unit, row.origin)
    return shown


def differences(stack: str, rows: Iterable[PackageDifference]) -> Table:
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
    empty = _Table(show_edge=False, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        empty.add_column(escaped(column), overflow="fold")
    return empty


def _shown(shown: Any) -> Any:
    if isinstance(shown, Text):
        return Text(escaped(shown.plain), shown.style) if escaped(shown.plain) != shown.plain else shown
    return escaped(shown) if isinstance(shown, str) else shown
