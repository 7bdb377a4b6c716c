"""Markdown as GitHub shows it: tables, and texts and code that show as they are."""

import re
from collections.abc import Iterable, Sequence

SPECIAL = re.compile(r"([\\`*\[\]#~$]|(?<!\w)_|_(?!\w))")
LINE_START = re.compile(r"^(\d+(?=[.)]\s)|(?=[-+]\s|=+$))")  # would begin a list, or make the line above a heading


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """A table, ending with a newline. Cells are Markdown of one line, in which this escapes each bar; columns from
    index `numbers_from` on are aligned to the right."""
    rules = ["---" if numbers_from is None or index < numbers_from else "---:" for index in range(len(columns))]
    lines = [columns, rules, *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def text(plain: str) -> str:
    """A plain text, on one line, in which nothing has a meaning to Markdown."""
    line = SPECIAL.sub(r"\\\1", " ".join(plain.split()).replace("&", "&amp;").replace("<", "&lt;"))
    return LINE_START.sub(lambda found: f"{found[1]}\\", line)


def code(plain: str) -> str:
    """A text as code, on one line, whatever it holds; nothing for an empty one."""
    line = " ".join(plain.split())
    if not line:
        return ""
    ticks = fence(line, least=1)
    return f"{ticks} {line} {ticks}" if "`" in line else f"{ticks}{line}{ticks}"


def fence(plain: str, *, least: int = 3) -> str:
    """As many backticks as can stand around a text that may hold backticks itself."""
    return "`" * max(least, *(len(ticks) + 1 for ticks in re.findall("`+", plain)), least)
