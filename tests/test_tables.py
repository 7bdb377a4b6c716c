"""A table on a terminal and as Markdown."""

import pytest
from rich.console import Console

from env import markdown
from env.reference import SettingRow
from runtime.tables import TextTable, settings_table

TABLE = TextTable("By [name]", ("Name", "|"), (("a|b `c`", "1"), ("<i>\x1b", "2")), ("n_1 *is* small",))


def test_markdown_shows_texts_as_they_are() -> None:
    assert TABLE.markdown().splitlines() == [
        r"## By \[name\]",
        "",
        r"| Name | \| |",
        "| --- | --- |",
        r"| a\|b \`c\` | 1 |",
        "| &lt;i>\x1b | 2 |",
        "",
        r"n_1 \*is\* small",
    ]
    assert markdown.table(["a", "b"], [], numbers_from=1).splitlines()[1] == "| --- | ---: |"


def test_a_terminal_shows_texts_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=60).print(TABLE.terminal())
    shown = capsys.readouterr().out
    assert "By [name]" in shown
    assert "a|b `c`" in shown
    assert "<i>\\x1b" in shown


@pytest.mark.parametrize(
    ("plain", "code", "fence"),
    [("", "", "```"), ("a b", "`a b`", "```"), ("a`b", "`` a`b ``", "```"), ("````", "````` ```` `````", "`````")],
)
def test_code_has_ticks_enough(plain: str, code: str, fence: str) -> None:
    assert (markdown.code(plain), markdown.fence(plain)) == (code, fence)


def test_a_setting_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    row = SettingRow("ASR_ALLOWED_HOSTS", "[red]a.example[/red] [0.1]", "", "", "environment", "")
    Console(width=120).print(settings_table([row]))
    assert "[red]a.example[/red] [0.1]" in capsys.readouterr().out
