"""A report on a terminal: what it ran on, and the verdicts. All else is in its files."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from runtime.measure.report.document import Say
from runtime.measure.report.record import Report, Status
from runtime.measure.report.sections.summary import banner
from runtime.measure.report.verdicts import QUESTIONS
from runtime.tables import Severity, table

MARKS: dict[Status, Severity] = {
    "pass": Severity("pass", "green"),
    "fail": Severity("FAIL", "bold red"),
    "not run": Severity("not run", "yellow"),
}


def shown(report: Report) -> Iterator[Table | Text]:
    """The banner and the verdicts."""
    told = banner(report, Say("en"))
    yield Text(f"{told.title}. {told.text}")
    grid = table("", "Question", "Why")
    for verdict in report.verdicts:
        mark = MARKS[verdict.status]
        grid.add_row(Text(mark.word, mark.style), Text(QUESTIONS[verdict.question].en), Text(verdict.reason.en))
    yield grid
