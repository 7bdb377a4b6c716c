"""Tables for people; rich measures Chinese characters as two columns wide, so that columns stay straight."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from env.describe import Row
from env.stacks import Difference
from runtime.measure.smoke import Verdict

WIDTH = 160  # columns, where output goes to a file or pipe; rich would assume 80 and fold the texts


@dataclass(frozen=True)
class Mark:
    """How a state is shown."""

    word: str
    style: str


SEVERITIES = {"same": Mark("same", "green"), "harmless": Mark("harmless", "yellow"), "matters": Mark("MATTERS", "red")}
VERDICTS = {True: Mark("pass", "green"), False: Mark("FAIL", "bold red")}


def console() -> Console:
    """Standard output, wide enough for the tables where it is no terminal."""
    out = Console()
    return out if out.is_terminal else Console(width=WIDTH)


def settings(rows: Iterable[Row]) -> Table:
    """Every setting in force."""
    table = _table("Setting", "Value", "Unit", "From")
    for row in rows:
        table.add_row(row.variable, row.value or "(not set)", row.unit, row.origin)
    return table


def differences(stack: str, rows: Iterable[Difference]) -> Table:
    """Installed against pinned."""
    table = _table(f"Stack {stack}", "Pinned", "Installed", "Difference", "Why pinned")
    for row in rows:
        mark = SEVERITIES[row.severity]
        table.add_row(
            row.name, row.pinned or "(none)", row.installed or "(none)", f"[{mark.style}]{mark.word}", row.why
        )
    return table


def verdicts(rows: Iterable[Verdict]) -> Table:
    """The smoke test, clip by clip."""
    table = _table("Clip", "Seconds", "Expected", "Detected", "Text", "Error", "RTF", "")
    for row in rows:
        mark = VERDICTS[row.passed]
        table.add_row(
            row.clip,
            f"{row.seconds:.2f}",
            row.expected_language or "none",
            row.language or "none",
            row.text or "(nothing)",
            f"{row.error_rate:.1%}",
            f"{row.rtf:.3f}",
            f"[{mark.style}]{mark.word}",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(show_edge=False, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
