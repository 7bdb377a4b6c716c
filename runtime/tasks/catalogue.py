"""The gettext catalogue of the Chinese text, brought up to date with the code. Needs Babel, of the dev stack."""

import ast
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from env.sources import PROJECT
from env.translation import DOMAIN, LOCALE

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

PO = LOCALE / "zh" / "LC_MESSAGES" / f"{DOMAIN}.po"
# Functions whose text is translated, and which of their arguments it is.
FUNCTIONS = {"translated": 0, "say": 0, "message": 0, "setting": 2}
# What a module imports that translates; `say` is also what elsewhere prints a line.
IMPORTED = {"translated", "message", "Translator", "Say", "setting"}
SAID = re.compile(r"""\bsay\((["'])(.*?)\1""")  # in a Jinja template
WIDTH = 120


def read() -> "Catalog":
    """The catalogue as it is."""
    from babel.messages.pofile import read_po

    with PO.open("rb") as file:
        return read_po(file, locale="zh", domain=DOMAIN)


def refresh() -> "Catalog":
    """Take out what the code no longer says, add what it says now, without Chinese, and compile; returns the result."""
    from babel.messages.catalog import Catalog
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import write_po

    known, renewed = read(), Catalog(locale="zh", domain=DOMAIN, fuzzy=False)
    for context, text in sorted(spoken(), key=lambda entry: (entry[1], entry[0] or "")):
        old = known.get(text, context)
        renewed.add(text, old.string if old else "", context=context)
    with PO.open("wb") as file:
        write_po(file, renewed, width=WIDTH, omit_header=True)
    with PO.with_suffix(".mo").open("wb") as file:
        write_mo(file, renewed)
    return renewed


def spoken() -> set[tuple[str | None, str]]:
    """Each text that the code says in both languages, with its context."""
    from runtime.measure.bench.record import SEED
    from runtime.measure.bench.record import read as read_benchmark
    from runtime.ops.doctor.checks import CHECKS

    found: set[tuple[str | None, str]] = {("check", check.title) for check in CHECKS}
    found.add((None, read_benchmark(SEED).head.where.host))
    for folder in ("env", "runtime"):
        for path in (PROJECT / folder).rglob("*.py"):
            found |= {(None, text) for text in _texts(ast.parse(path.read_text(encoding="utf-8")))}
        for path in (PROJECT / folder).rglob("*.html"):
            found |= {(None, text) for _, text in SAID.findall(path.read_text(encoding="utf-8"))}
    return found


def _texts(module: ast.Module) -> Iterator[str]:
    nodes = list(ast.walk(module))
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    if not imported & IMPORTED:
        return
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            text = node.args[FUNCTIONS[node.func.id]]
            if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value:
                yield text.value
