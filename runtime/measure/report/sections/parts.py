"""What many chapters are made of: figures of a part of the benchmark, and what is not there, with the reason."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from runtime.measure.bench import present
from runtime.measure.bench.record import SEED, Benchmark, read
from runtime.measure.comparing import apart
from runtime.measure.quantities import PARTS
from runtime.measure.records import Head
from runtime.measure.report.document import Block, Code, Paragraph, Say, Table
from runtime.measure.report.record import Report, Source

NUMBER = re.compile(r"[-+]?\d|–$")  # what a cell begins with that is a figure
FIRST_ZH = "Atlas 800 A2,单张 910B4(32 GB HBM)"  # the first validation's host

# The parts that figures are of, by the part of `invoke bench` that measures them.
ASKED = {"memory": ("memory", "batch-memory", "length-memory"), "long": ("long",), "host": ("host",)}


class Cells(Protocol):
    """What the measurements' own tables are alike in."""

    @property
    def title(self) -> str:
        """What it is of."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The headings."""

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """As many cells each."""


def figures(report: Report, part: str, say: Say) -> Iterator[Block]:
    """All that the benchmark tells of a part of its plan: figures, what it could not measure, and the first
    validation's figures."""
    bench = report.bench
    if bench is None:
        yield missing(report.source("bench"), say)
        return
    for name in ASKED.get(part, (part,)):
        for grid in present.grids(replace(bench, figures=tuple(bench.part(name)), absent=()), say.language):
            once = present.NAMES["value"][say.language] in grid.columns
            note = say(" (each measured once, n = 1)", "(各测一次,n = 1)") if once else ""
            yield table(grid, say, grid.title + note, ours=True)
    yield from _absent(bench, part, say)
    yield from _elsewhere(bench, part, say)


def table(grid: Cells, say: Say, caption: str = "", *, ours: bool = False) -> Table:
    """A table from one of those that the measurements' own pages have; `ours`: what is in its cells was written by the
    kit, not heard."""
    count = len(grid.columns)
    figures = next((n for n in range(count + 1) if all(NUMBER.match(cell) for row in grid.rows for cell in row[n:])), 0)
    columns = tuple(say.typeset(heading) for heading in grid.columns)
    rows = tuple(tuple(say.typeset(cell) for cell in row) for row in grid.rows) if ours else grid.rows
    return Table(columns, rows, say.typeset(caption or grid.title), figures=figures if figures < count else None)


def missing(source: Source, say: Say) -> Paragraph:
    """That a record is not there, and why."""
    why = say.joined(say.words(note) for note in source.notes) or say("not measured", "未测量")
    advice = f" → {source.advice}" if source.advice else ""
    return Paragraph(say(f"Not run: {why}{advice}", f"未执行:{why}{advice}"), "open")


def unfinished(head: Head, say: Say) -> Iterator[Paragraph]:
    """That a run did not come to its end, if so."""
    if not head.complete:
        words = say(
            "This run is not complete: {}. What was found until then is kept.",
            "本次运行未完成:{}。已得到的结果予以保留。",
        )
        yield Paragraph(words.format(head.ended), "fail")


def _absent(bench: Benchmark, part: str, say: Say) -> Iterator[Block]:
    """What the benchmark could not measure of a part, was not asked for, or did not come to."""
    names = ASKED.get(part, (part,))
    gone = [one for one in bench.absent if one.what.partition("@")[0].partition("/")[0] in (part, *names)]
    if gone:
        headings = (say("Not measured", "未测量"), say("Why", "原因"), say("Next", "下一步"))
        rows = tuple((Code(one.what), one.reason, one.advice) for one in gone)
        yield Table(headings, rows)
    elif not any(bench.part(name) for name in names):
        title = PARTS[part].name[say.language]
        if part not in bench.plan.get("parts", ()):
            words = say(
                "Not run: {} was not asked for → invoke bench, then invoke report",
                "未执行:未要求测量“{}” → invoke bench,再 invoke report",
            )
            yield Paragraph(words.format(title), "open")
        else:
            words = say("Not run: the benchmark did not come to it ({})", "未执行:性能测试未进行到此项({})")
            yield Paragraph(words.format(bench.head.ended), "open")


def _elsewhere(bench: Benchmark, part: str, say: Say) -> Iterator[Block]:
    """The first validation's figures of the same quantities, which are not from here."""
    first = read(SEED)
    names = ASKED.get(part, (part,))
    own = replace(bench, figures=_of(bench, names))
    grid = present.against(replace(first, figures=_of(first, names)), own, say.language)
    if not grid.rows:
        return
    there = first.head.where
    comparable = not apart(there, bench.head.where)
    shown = len(grid.columns) if comparable else 3
    headings = (grid.columns[0], say(f"Elsewhere: {there.description}", f"他处:{there.description}"), *grid.columns[2:])
    caption = say(
        f"Beside it, from elsewhere: the first validation on {there.host}",
        f"对照(非本机测得):首次验证,{FIRST_ZH}",
    )
    rows = tuple((say.typeset(row[0]), *row[1:shown]) for row in grid.rows)
    yield Table(headings[:shown], rows, caption, figures=1)
    if not comparable:
        here = bench.head.where
        words = say(
            "No ratios: that was measured on {} with {}, this on {} with {}.",
            "不列比值:前者在 {} 上以 {} 测得,本次在 {} 上以 {} 测得。",
        )
        yield Paragraph(words.format(there.description, there.model, here.description, here.model))


def _of(bench: Benchmark, names: Sequence[str]) -> tuple:  # type: ignore[type-arg]
    return tuple(figure for name in names for figure in bench.part(name))
