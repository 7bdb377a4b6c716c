"""What was measured: the smoke test, accuracy, and the benchmark's parts."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from env.translation import translated
from runtime.measure.accuracy import tables as scores
from runtime.measure.accuracy.run import Accuracy
from runtime.measure.bench import sizing as sizes
from runtime.measure.bench import tables
from runtime.measure.bench.plots import TITLES, Which, figure_svg
from runtime.measure.bench.record import SEED, Benchmark, read
from runtime.measure.bench.tables import LEGEND
from runtime.measure.metrics import PARTS, amount, share
from runtime.measure.records import Head, Where
from runtime.measure.report.document import Block, Code, Items, Mark, Paragraph, Picture, Say, Section, Table
from runtime.measure.report.record import FigureSource, Report
from runtime.measure.smoke.record import CHECKS, Smoke
from runtime.measure.statistics import apart

NUMBER = re.compile(r"[-+]?\d|–$")  # what a cell begins with that is a figure

# The parts that figures are of, by the part of `invoke bench` that measures them.
ASKED = {"memory": ("memory", "batch-memory", "length-memory"), "long": ("long",)}

Maker = Callable[[Report, Say], Section]


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
        for grid in tables.grids(replace(bench, figures=tuple(bench.part(name)), absent=()), say.language):
            once = tables.NAMES["value"][say.language] in grid.columns
            note = say(" (each measured once, n = 1)") if once else ""
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


def missing(source: FigureSource, say: Say) -> Paragraph:
    """That a record is not there, and why."""
    why = say.joined(say.words(note) for note in source.notes) or say("not measured")
    advice = f" → {source.advice}" if source.advice else ""
    return Paragraph(say("Not run: {why}{advice}", why=why, advice=advice), "open")


def unfinished(head: Head, say: Say) -> Iterator[Paragraph]:
    """That a run did not come to its end, if so."""
    if not head.complete:
        words = say(
            "This run is not complete: {}. What was found until then is kept.",
        )
        yield Paragraph(words.format(head.ended), "fail")


def _absent(bench: Benchmark, part: str, say: Say) -> Iterator[Block]:
    """What the benchmark could not measure of a part, was not asked for, or did not come to."""
    names = ASKED.get(part, (part,))
    gone = [one for one in bench.absent if one.what.partition("@")[0].partition("/")[0] in (part, *names)]
    if gone:
        headings = (say("Not measured"), say("Why"), say("Next"))
        rows = tuple((Code(one.what), one.reason, one.advice) for one in gone)
        yield Table(headings, rows)
    elif not any(bench.part(name) for name in names):
        title = PARTS[part].name[say.language]
        if part not in bench.plan.get("parts", ()):
            words = say(
                "Not run: {} was not asked for → invoke bench, then invoke report",
            )
            yield Paragraph(words.format(title), "open")
        else:
            words = say("Not run: the benchmark did not come to it ({})")
            yield Paragraph(words.format(bench.head.ended), "open")


def _elsewhere(bench: Benchmark, part: str, say: Say) -> Iterator[Block]:
    """The first validation's figures of the same quantities, which are not from here."""
    first = read(SEED)
    names = ASKED.get(part, (part,))
    own = replace(bench, figures=_of(bench, names))
    grid = tables.against(replace(first, figures=_of(first, names)), own, say.language)
    if not grid.rows:
        return
    there = first.head.where
    comparable = not apart(there, bench.head.where)
    shown = len(grid.columns) if comparable else 3
    headings = (grid.columns[0], say("Elsewhere: {description}", description=there.description), *grid.columns[2:])
    caption = say(
        "Beside it, from elsewhere: the first validation on {host}",
        host=translated(there.host),
    )
    rows = tuple((say.typeset(row[0]), *row[1:shown]) for row in grid.rows)
    yield Table(headings[:shown], rows, caption, figures=1)
    if not comparable:
        here = bench.head.where
        words = say(
            "No ratios: that was measured on {} with {}, this on {} with {}.",
        )
        yield Paragraph(words.format(there.description, there.model, here.description, here.model))


def _of(bench: Benchmark, names: Sequence[str]) -> tuple:  # type: ignore[type-arg]
    return tuple(figure for name in names for figure in bench.part(name))


def smoke(report: Report, say: Say) -> Section:
    """Clips whose words are known, and the checks beyond them."""
    record = report.smoke
    blocks = tuple(_smoked(record, say)) if record else (missing(report.source("smoke"), say),)
    return Section("smoke", say("Does it transcribe?"), blocks)


def accuracy(report: Report, say: Say) -> Section:
    """Error rates over a data set, with what others state beside them."""
    record = report.accuracy
    blocks = tuple(_scored(record, say)) if record else (missing(report.source("accuracy"), say),)
    return Section("accuracy", say("Accuracy"), blocks)


def loading(report: Report, say: Say) -> Section:
    """How long loading takes."""
    text = say(
        "Each was measured once. Opening the device and importing torch are not part of it; starting vLLM is.",
    )
    return Section("loading", say("Loading"), (*_when(report, text), *figures(report, "loading", say)))


def latency(report: Report, say: Say) -> Section:
    """One clip, again and again."""
    blocks: list[Block] = []
    if report.bench:
        plan = report.bench.plan
        clip = plan.get("clip") or say(
            "the official one of 4.2 s, or the bundled one nearest to it where that was not fetched",
        )
        runs, warmups = plan.get("runs", "–"), plan.get("warmups", "–")
        text = say(
            "The clip: {clip}. Runs: {runs}, after {warmups} for warming up.",
            clip=clip,
            runs=runs,
            warmups=warmups,
        )
        blocks.append(Paragraph(text))
        blocks.append(Paragraph(say.words(LEGEND)))
    blocks += [*figures(report, "latency", say), *_plot(report, "latency", say)]
    return Section("latency", say("Latency"), tuple(blocks))


def throughput(report: Report, say: Say) -> Section:
    """Batches of growing size."""
    blocks = (*figures(report, "throughput", say), *_plot(report, "throughput", say))
    return Section("throughput", say("Throughput"), blocks)


def memory(report: Report, say: Say) -> Section:
    """Of the device and of the host."""
    text = say("On a CPU the device's memory is that of the processes.")
    note = _when(report, text) if report.head.where.silicon == "CPU" else ()
    return Section("memory", say("Memory"), (*note, *figures(report, "memory", say), *_plot(report, "memory", say)))


def long(report: Report, say: Say) -> Section:
    """Audio of many minutes."""
    return Section("long", say("Long audio"), tuple(figures(report, "long", say)))


def server(report: Report, say: Say) -> Section:
    """Many clients."""
    blocks: list[Block] = []
    if report.bench is None:
        blocks.append(missing(report.source("bench"), say))
    else:
        text = say(
            "Closed arrival: so many clients ask again as soon as they are answered. Open arrival: requests come at a "
            "rate, whether or not earlier ones are answered.",
        )
        blocks.append(Paragraph(text))
        for part in ("closed", "open"):
            which: Which = "closed" if part == "closed" else "open"
            blocks += [*figures(report, part, say), *_plot(report, which, say)]
    return Section("server", say("Server under load"), tuple(blocks))


def sizing(report: Report, say: Say) -> Section:
    """What one such server answers, and what it takes, with the arithmetic."""
    blocks: list[Block] = []
    if report.bench is None:
        blocks.append(missing(report.source("bench"), say))
    else:
        for grid, how in sizes.grids(report.bench, say.language):
            blocks += [table(grid, say, ours=True), Paragraph(say.typeset(how))]
        if not report.bench.part("closed"):
            words = say(
                "Clients: no server under load was measured → invoke bench, then invoke report",
            )
            blocks.append(Paragraph(words, "open"))
    return Section("sizing", say("Sizing"), tuple(blocks))


def versus(report: Report, say: Say) -> Section:
    """Beside qwen-asr itself, and both engines side by side."""
    if report.bench is None:
        blocks: tuple[Block, ...] = (missing(report.source("bench"), say),)
    else:
        both = (*figures(report, "vllm", say), *_plot(report, "vllm", say))
        blocks = (*figures(report, "engines", say), *both, *_why_texts_differ(report, say))
    return Section("versus", say("Side by side"), blocks)


def _why_texts_differ(report: Report, say: Say) -> tuple[Block, ...]:
    if report.bench is None or not report.bench.sides:
        return ()
    text = say(
        "Ratios are vLLM's figure through that of the transformers engine, round by round. Transcripts differ only "
        "where two tokens are almost equally likely.",
    )
    return (Paragraph(text),)


def _smoked(record: Smoke, say: Say) -> Iterator[Block]:
    yield from unfinished(record.head, say)
    passed, failed = Mark(say("pass"), "pass"), Mark(say("fail"), "fail")
    none = say("none")
    headings: tuple[str, ...] = (
        say("Verdict"),
        say("Clip"),
        say("Language"),
        say("Text"),
    )
    headings += (say("Audio"), say("Error rate"), "RTF")
    rows = tuple(
        (
            passed if one.passed else failed,
            Code(one.clip),
            one.language or none,
            (one.text or say("(nothing)")) + (f" — {one.fault}" if one.fault else ""),
            amount(one.seconds, "s"),
            share(one.error_rate),
            f"{one.rtf:.3f}",
        )
        for one in record.verdicts
    )
    text = say(
        "Each clip was transcribed once. The error rate is of characters for Chinese, else of words.",
    )
    yield Paragraph(text)
    yield Table(headings, rows, figures=4)
    if record.checks:
        checked = tuple(
            (
                passed if one.passed else failed,
                CHECKS[one.check][say.language] if one.check in CHECKS else one.check,
                Code(one.clip),
                one.found + (f" — {one.fault}" if one.fault else ""),
            )
            for one in record.checks
        )
        yield Table((say("Verdict"), say("Check"), say("Clip"), say("Found")), checked)


def _scored(record: Accuracy, say: Say) -> Iterator[Block]:
    yield from unfinished(record.head, say)
    yield Items(tuple(map(say.typeset, scores.summary(record, say.language))))
    for grid in scores.grids(record, say.language):
        if grid.rows:
            yield table(grid, say)
            yield from (Paragraph(say.typeset(note)) for note in grid.notes)


def _when(report: Report, text: str) -> tuple[Block, ...]:
    return (Paragraph(text),) if report.bench else ()


def _plot(report: Report, which: Which, say: Say) -> Iterator[Block]:
    if report.bench:
        svg = figure_svg(report.bench, which, say.language)
        if svg:
            yield Picture(which, svg, _caption(which, report.bench.head.where, say))


def _caption(which: Which, where: Where, say: Say) -> str:
    words = say("Plot: {}, measured on {}. The table has its figures.")
    return words.format(TITLES[which][say.language], where.description)
