"""What others wrote gives no orders to the terminal on which a table shows it."""

from collections.abc import Callable

import pytest
from rich.text import Text

from runtime.measure.bench import tables as bench
from runtime.measure.smoke import record as measured
from runtime.measure.smoke.record import ClipVerdict, SmokeCheck
from runtime.ops.doctor import checks as doctor
from runtime.ops.doctor.findings import Finding
from runtime.tables import console, table

ORDER = "\x1b[2J\x9b2J\u202e[bold]text"
SHOWN = r"\x1b[2J\x9b2J\u202e[bold]text"


def heading() -> object:
    """As the title of a column."""
    return table(ORDER.replace("[bold]", "\\[bold]"))


@pytest.mark.parametrize(
    "made",
    [
        lambda: measured.verdicts([ClipVerdict("a.wav", 1.0, None, None, "", ORDER, 0.0, 0.1)]),
        lambda: measured.checks([SmokeCheck("batch", "a.wav", ORDER)]),
        lambda: doctor.table([Finding("A1", "Check", "fail", ORDER, "nothing")]),
        lambda: bench.terminal(bench.BenchTable("Title", ("Column",), ((ORDER,),))),
        lambda: Text(ORDER),
        heading,
    ],
    ids=["verdicts", "checks", "findings", "figures", "line", "heading"],
)
def test_control_characters_are_shown(made: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    console().print(made())
    printed = capsys.readouterr().out
    assert SHOWN in printed
    assert not set("\x1b\x9b\u202e") & set(printed)


def test_what_is_no_control_character_stays(capsys: pytest.CaptureFixture[str]) -> None:
    grid = table("文件", "Text")
    grid.add_row("录音.wav", Text("two\nlines", "bold"))
    console().print(grid)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "文件      Text",
        "录音.wav  two",
        "          lines",
    ]
