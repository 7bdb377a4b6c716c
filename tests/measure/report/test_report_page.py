"""The report's two forms: HTML in a real Chromium, and Markdown as GitHub reads it."""

import base64
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from browser import Page, opened
from markdown_it import MarkdownIt
from markdown_it.token import Token

from env.translation import Language
from runtime.measure.report.document import (
    Banner,
    Block,
    Code,
    CodeBlock,
    Mark,
    Paragraph,
    ReportDocument,
    Say,
    Section,
    Table,
)
from runtime.measure.report.record import Report
from runtime.measure.report.render import html, markdown, pictures
from runtime.measure.report.sections import document

LANGUAGES: tuple[Language, ...] = ("en", "zh")
HOSTILE = (
    "a|b",
    "`c` ``d``",
    "<script>alert(1)</script>",
    "line\nline",
    "*e* _f_ [g](h) ~~i~~",
    "# j",
    "1. k",
    r"\|",
    "&amp;",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """A Chromium."""
    with opened() as page:
        yield page


def shown(browser: Page, text: str, path: Path) -> Page:
    """A page that is opened from a file."""
    path.write_text(text, encoding="utf-8")
    browser.driver.get(path.as_uri())
    return browser


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_is_shown_without_anything_from_elsewhere(
    language: Language, report: Report, browser: Page, tmp_path: Path
) -> None:
    page = shown(browser, html(document(report, language)), tmp_path / "report.html")
    assert page.complaints() == []  # a request, or a style that the policy forbids, is one
    assert (
        page.run("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    )
    assert page.run("return document.documentElement.lang") == {"en": "en", "zh": "zh-CN"}[language]
    assert page.run("return [...document.images].every(one => one.naturalWidth > 300 && one.alt)")
    assert page.run("return document.images.length") == len(pictures(document(report, language))) >= 3
    links = page.run("return [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
    assert len(links) == page.run("return document.querySelectorAll('main > section').length")
    assert page.run("return [...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    tint = "return getComputedStyle(document.querySelector('.banner')).backgroundColor"
    assert page.run(tint) == "rgb(253, 241, 222)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_from_reading_it(scheme: str, report: Report, browser: Page, tmp_path: Path) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page = shown(browser, html(document(report, "zh")), tmp_path / "report.html")
    found = Axe().run(page.driver)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []


def test_it_prints_on_pages_that_each_say_what_it_ran_on(report: Report, browser: Page, tmp_path: Path) -> None:
    page = shown(browser, html(document(report, "en")), tmp_path / "report.html")
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    pages = pdf.count(b"/Type /Page\n")
    assert pages > 5
    assert pdf.count(b"/MediaBox [0 0 594.95996 841.91998]") == pages  # A4
    assert "@bottom-left" in html(document(report, "en"))


@pytest.mark.parametrize(
    ("silicon", "tone"), [("NPU", "npu"), ("simulated NPU", "simulated"), ("CPU", "cpu"), ("unknown", "unknown")]
)
def test_the_look_tells_what_it_ran_on(silicon: str, tone: str, report: Report, browser: Page, tmp_path: Path) -> None:
    where = replace(report.head.where, silicon=silicon, description="Ascend910B4")  # type: ignore[arg-type]
    other = replace(report, head=replace(report.head, where=where))
    page = shown(browser, html(document(other, "en")), tmp_path / "report.html")
    look = "const style = getComputedStyle(document.querySelector('.banner')); return style.backgroundColor"
    tints = {"npu": "rgb(226, 244, 233)", "simulated": "rgb(242, 234, 250)", "cpu": "rgb(253, 241, 222)"}
    tints["unknown"] = tints["cpu"]
    assert page.run(look) == tints[tone]
    assert page.run("return document.body.className") == tone


def hostile() -> ReportDocument:
    """A document whose texts look like Markdown and HTML."""
    rows = tuple((text, Code(text), Mark(text, "pass")) for text in HOSTILE)
    blocks: tuple[Block, ...] = (
        Table(("a|b", "<i>", "c"), rows, "*caption*"),
        CodeBlock("```\nx\n```"),
        *map(Paragraph, HOSTILE),
    )
    return ReportDocument(
        "en", "# <b>title</b>", (("k|", "v`"),), Banner("cpu", "*banner*", "<b>"), (Section("s", "1. t", blocks),)
    )


def tables(text: str) -> list[list[int]]:
    """The number of cells in each row of each table, as Markdown's own parser reads them."""
    found: list[list[int]] = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append(0)
        elif token.type in ("th_open", "td_open"):
            found[-1][-1] += 1
    return found


def contents(tokens: list[Token]) -> str:
    """The text that a reader sees."""
    inner = (child for token in tokens for child in (token.children or [token]))
    return "\n".join(token.content for token in inner if token.type in ("text", "code_inline", "fence"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_its_markdown_is_well_formed(language: Language, report: Report) -> None:
    text = markdown(document(report, language))
    expected = [
        [len(block.headings)] * (len(block.rows) + 1)
        for section in document(report, language).sections
        for block in section.blocks
        if isinstance(block, Table)
    ]
    assert tables(text) == expected
    for name in pictures(document(report, language)):
        assert f"](pictures/{name})" in text
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    headings = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    assert len(headings) == 2 + len(document(report, language).sections)


def test_values_are_shown_as_they_are(browser: Page, tmp_path: Path) -> None:
    text = markdown(hostile())
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    assert tables(text) == [[3] * (len(HOSTILE) + 1)]
    inner = [child for token in tokens for child in token.children or ()]
    assert {child.attrs["href"] for child in inner if child.type == "link_open"} == {"#s"}
    assert not [child for child in inner if child.type in ("em_open", "s_open")]
    assert not [token for token in tokens if token.type == "html_block" and "script" in token.content]
    seen = contents(tokens)
    for value in HOSTILE:
        assert seen.count(" ".join(value.split())) >= 3, value
    page = shown(browser, html(hostile()), tmp_path / "report.html")
    assert page.complaints() == []
    cells = page.run("return [...document.querySelectorAll('td')].map(cell => cell.textContent)")
    assert cells == [value for value in HOSTILE for _ in range(3)]


def test_chinese_stands_with_its_own_punctuation() -> None:
    say = Say("zh")
    assert say.typeset("通过 5 项,失败 0 项;日期(UTC):今天") == "通过 5 项，失败 0 项；日期（UTC）：今天"
    assert say.typeset("x86_64 CPU, 2 cores (a, b): c") == "x86_64 CPU, 2 cores (a, b): c"
    assert Say("en").typeset("日期(UTC)") == "日期(UTC)"
