"""Tables on a terminal and as Markdown. On a terminal rich counts Chinese characters as two columns, so that columns
stay straight."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from env import markdown
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


@dataclass(frozen=True)
class TextTable:
    """A table of plain texts with a title, and remarks below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def terminal(self) -> Table:
        """The table with its title, without the notes."""
        shown = table(*self.columns)
        shown.title, shown.title_justify, shown.title_style = Text(escaped(self.title)), "left", "bold"
        for row in self.rows:
            shown.add_row(*map(Text, row))
        return shown

    def markdown(self) -> str:
        """The title as a heading of the second level, the table, and each note as a paragraph."""
        rows = [[markdown.text(cell) for cell in row] for row in self.rows]
        body = markdown.table([markdown.text(column) for column in self.columns], rows)
        notes = "".join(f"\n{markdown.text(note)}\n" for note in self.notes)
        return f"## {markdown.text(self.title)}\n\n{body}{notes}"


class _Console(Console):
    """Shows control characters in what it prints."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_escaped, objects), **options)


class _Table(Table):
    """Shows control characters in its cells: file names and transcripts may hold them."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(_escaped, cells), **options)


def console() -> Console:
    """Standard output, WIDTH columns wide where it is no terminal."""
    out = _Console()
    return out if out.is_terminal else _Console(width=WIDTH)


def settings_table(rows: Iterable[SettingRow]) -> Table:
    """The settings in force, each with where its value comes from."""
    shown = table("Setting", "Value", "Unit", "From")
    for row in rows:
        shown.add_row(*map(Text, (row.variable, row.value or "(not set)", row.unit, row.origin)))
    return shown


def differences_table(stack: str, rows: Iterable[PackageDifference]) -> Table:
    """The versions of a stack, installed against pinned."""
    shown = table(f"Stack {stack}", "Pinned", "Installed", "Difference", "Why pinned")
    for row in rows:
        mark = SEVERITIES[row.severity]
        cells = (row.name, row.pinned or "(none)", row.installed or "(none)")
        shown.add_row(*map(Text, cells), Text(mark.word, mark.style), Text(row.why))
    return shown


def table(*columns: str) -> Table:
    """An empty table in the style that all of them have. Cells that are `str` may hold rich's markup."""
    empty = _Table(show_edge=False, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        empty.add_column(escaped(column), overflow="fold")
    return empty


def _escaped(shown: Any) -> Any:
    if isinstance(shown, Text):
        return Text(escaped(shown.plain), shown.style) if escaped(shown.plain) != shown.plain else shown
    return escaped(shown) if isinstance(shown, str) else shown
