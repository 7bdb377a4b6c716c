"""What was measured, as tables for people."""

from collections.abc import Iterable

from rich.table import Table

from runtime.measure.smoke import Verdict
from runtime.ops.present import Mark, table

VERDICTS = {True: Mark("pass", "green"), False: Mark("FAIL", "bold red")}


def verdicts(rows: Iterable[Verdict]) -> Table:
    """The smoke test, clip by clip."""
    shown = table("Clip", "Seconds", "Expected", "Detected", "Text", "Error", "RTF", "")
    for row in rows:
        mark = VERDICTS[row.passed]
        shown.add_row(
            row.clip,
            f"{row.seconds:.2f}",
            row.expected_language or "none",
            row.language or "none",
            row.text or "(nothing)",
            f"{row.error_rate:.1%}",
            f"{row.rtf:.3f}",
            f"[{mark.style}]{mark.word}",
        )
    return shown
