"""A document as Markdown that GitHub shows, and as one HTML file that needs nothing beside itself."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from env.translation import Language, translated
from runtime.measure.report.document import Code, Mark, Picture, ReportDocument, Say, kind
from runtime.measure.report.record import Report, Status
from runtime.measure.report.sections.summary import banner
from runtime.measure.report.verdicts import QUESTIONS
from runtime.tables import Severity, table

TEMPLATES = Path(__file__).parent / "templates"
PICTURES = "pictures"  # where the Markdown finds them, beside it
SYMBOLS = {
    "pass": "✅",
    "fail": "❌",
    "open": "⚪",
    "npu": "🟩",
    "simulated": "🟪",
    "cpu": "🟧",
    "unknown": "⬜",
    "none": "🟥",
}
TAGS: dict[Language, str] = {"en": "en", "zh": "zh-CN"}

SPECIAL = re.compile(r"([\\`*\[\]|#~$]|(?<!\w)_|_(?!\w))")
FIRST = re.compile(r"^(\d+(?=[.)]\s)|(?=[-+]\s|=+$))")  # what would begin a list, or make a heading of the line above

MARKS: dict[Status, Severity] = {
    "pass": Severity("pass", "green"),
    "fail": Severity("FAIL", "bold red"),
    "not run": Severity("not run", "yellow"),
}


def markdown(document: ReportDocument) -> str:
    """GitHub's Markdown. Its pictures are files in PICTURES."""
    text = _environment(html=False).get_template("report.md.jinja").render(**_names(document))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def html(document: ReportDocument) -> str:
    """One file: style and pictures are in it, and its policy forbids everything else."""
    environment = _environment(html=True)
    names = _names(document)
    style = environment.get_template("report.css").render(running=_css_string(document.banner.title), **names)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("report.html.jinja").render(style=Markup(style), digest=digest, **names) + "\n"


def pictures(document: ReportDocument) -> dict[str, str]:
    """The document's pictures by the name of their file."""
    blocks = [block for section in document.sections for block in section.blocks]
    return {f"{block.name}.svg": block.svg for block in blocks if isinstance(block, Picture)}


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is, on one line."""
    line = SPECIAL.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;"))
    return FIRST.sub(lambda found: f"{found[1]}\\", line)


def code(text: str, *, in_table: bool = False) -> str:
    """A text as Markdown's code on one line, whatever it holds."""
    line = " ".join(text.split())
    if not line:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    line = line.replace("|", "\\|") if in_table else line
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def fence(text: str) -> str:
    """What may stand around lines of code that hold fences themselves."""
    return "`" * max(3, *(len(found) + 1 for found in re.findall("`+", text)), 3)


def cell(value: str | Code | Mark) -> str:
    """What stands in a cell of a Markdown table."""
    if isinstance(value, Code):
        return code(value.text, in_table=True)
    return f"{SYMBOLS[value.tone]} {plain(value.text)}" if isinstance(value, Mark) else plain(value)


def address(block: Picture) -> str:
    """A picture as a data address: its styles and names stay its own."""
    return "data:image/svg+xml;base64," + base64.b64encode(block.svg.encode()).decode()


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (plain, code, cell, fence, address, kind, _cell_kind)
    environment.filters.update({function.__name__.lstrip("_"): function for function in filters})
    return environment


def _names(document: ReportDocument) -> dict[str, object]:
    """What the templates know."""
    return {
        "document": document,
        "tag": TAGS[document.language],
        "symbols": SYMBOLS,
        "pictures": PICTURES,
        "contents": Say(document.language).words(translated("Contents")),
    }


def _cell_kind(value: str | Code | Mark) -> str:
    return type(value).__name__.lower()


def _css_string(text: str) -> Markup:
    """A text as CSS writes it in quotes: whatever is no letter or digit of ASCII by its number."""
    escaped = (letter if letter.isascii() and letter.isalnum() else f"\\{ord(letter):x} " for letter in text)
    return Markup('"' + "".join(escaped) + '"')


def shown(report: Report) -> Iterator[Table | Text]:
    """The banner and the verdicts."""
    told = banner(report, Say("en"))
    yield Text(f"{told.title}. {told.text}")
    grid = table("", "Question", "Why")
    for verdict in report.verdicts:
        mark = MARKS[verdict.status]
        grid.add_row(Text(mark.word, mark.style), Text(QUESTIONS[verdict.question].en), Text(verdict.reason.en))
    yield grid
