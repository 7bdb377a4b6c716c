"""A benchmark as tables: on a terminal, and as Markdown in English or Chinese."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from env.translation import Bilingual, Language, translated
from runtime.measure.bench.record import Benchmark
from runtime.measure.metrics import PARTS, UNKNOWN, amount, part_of, times
from runtime.measure.records import CALCULATING, Where
from runtime.measure.statistics import Figure, FigureDifference, apart, compare
from runtime.model.device import Silicon
from runtime.tables import table

SILICON: dict[Silicon, Bilingual] = {
    "NPU": translated("an NPU"),
    "simulated NPU": translated("a simulated NPU, which says nothing of an NPU's speed"),
    "CPU": translated("a CPU, no NPU"),
    "unknown": translated("unknown silicon"),
}
STATISTICS = ("p50", "p90", "p95", "p99", "mean", "minimum", "maximum", "deviation")
NAMES = {
    "quantity": translated("Quantity"),
    "value": translated("Value"),
    "count": translated("n"),
    "warmups": translated("warm-ups"),
    "p50": translated("p50"),
    "p90": translated("p90"),
    "p95": translated("p95"),
    "p99": translated("p99"),
    "mean": translated("mean"),
    "minimum": translated("min"),
    "maximum": translated("max"),
    "deviation": translated("deviation"),
    "outliers": translated("outliers"),
    "figure": translated("Figure"),
    "baseline": translated("Baseline"),
    "here": translated("Here"),
    "ratio": translated("Ratio"),
    "verdict": Bilingual("", ""),
    "engine": translated("Engine"),
    "device": translated("On"),
    "packages": translated("Packages"),
    "settings": translated("Settings"),
    "part": translated("Part"),
    "absent": translated("Not measured"),
    "reason": translated("Why"),
}
TITLE = translated("Benchmark")
AGAINST = translated("Against the baseline")
BESIDE = translated("Side by side: what the engines were")
OF_VLLM = "ASR_VLLM_"  # how the names of settings begin that count for that engine alone
UNFINISHED = translated("Not complete: {}. What was measured until then is kept.")
LEGEND = translated(
    "p50 is the median. n samples follow the warm-ups, which do not count; outliers do, and lie more than 1.5 "
    "interquartile ranges beyond the quartiles. A table of values alone has one sample of each. Audio per second: "
    "seconds of audio per second of time (x).",
)
FOREIGN = translated(
    "These ratios say nothing of the software, as other things were used: {}.",
)
SIDES = translated("{what} {before} there, {after} here")
OTHER_CLIP = translated("Another clip was heard: {} there, {} here.")
MISSING = translated("Not measured here, but in the baseline: {}.")
PARTIAL = translated("The baseline is not complete: {}.")
SOURCE = translated("The baseline's source: {}")
VERDICTS = {
    "better": translated("better"),
    "worse": translated("worse"),
    "same": translated("the same"),
    "noise": translated("within noise"),
    "few": translated("too few samples to tell"),
    "": Bilingual("", ""),
}


@dataclass(frozen=True)
class BenchTable:
    """A table with a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def headline(where: Where, language: Language = "en") -> str:
    """What it was measured on, in one line: silicon in plain words, device, model, number format, engine."""
    words = SILICON[where.silicon][language]
    return f"{words} · {where.description} · {where.model} · {where.dtype} · {where.engine_and_version}"


def grids(record: Benchmark, language: Language = "en") -> Iterator[BenchTable]:
    """A table for each part that has figures, one for the engines that stood side by side, and one for what was not
    measured."""
    for name, part in PARTS.items():
        figures = record.part(name)
        if figures:
            yield _part(part.name[language], part.axis[language], figures, language)
        if name == "vllm" and record.sides:
            yield _sides(record.sides, language)
    if record.absent:
        columns = tuple(NAMES[name][language] for name in ("part", "reason"))
        reasons = (f"{one.reason} → {one.advice}" if one.advice else one.reason for one in record.absent)
        rows = tuple((one.what, reason) for one, reason in zip(record.absent, reasons, strict=True))
        yield BenchTable(NAMES["absent"][language], columns, rows)


def against(before: Benchmark, after: Benchmark, language: Language = "en") -> BenchTable:
    """Each figure that both have, with their ratio; with a verdict where both were measured with the same things."""
    columns = tuple(NAMES[name][language] for name in ("figure", "baseline", "here", "ratio", "verdict"))
    judged = not apart(before.head.where, after.head.where)
    rows = tuple(_compared(one, language, judged=judged) for one in compare(before.figures, after.figures))
    return BenchTable(AGAINST[language], columns, rows)


def cautions(before: Benchmark, after: Benchmark, language: Language = "en") -> Iterator[str]:
    """What one should know before one reads the ratios."""
    differing = [
        SIDES[language].format(what=one.what[language], before=one.before, after=one.after)
        for one in apart(before.head.where, after.head.where)
    ]
    if differing:
        yield FOREIGN[language].format("; ".join(differing))
    if before.clip != after.clip and before.clip and after.clip:
        yield OTHER_CLIP[language].format(before.clip, after.clip)
    missing = _missing(before, after)
    if missing:
        yield MISSING[language].format(", ".join(missing))
    if not before.head.complete:
        yield PARTIAL[language].format(before.head.ended)
    if before.source:
        yield SOURCE[language].format(before.source)


def markdown(record: Benchmark, language: Language = "en", *, baseline: Benchmark | None = None) -> str:
    """The whole benchmark as a page of Markdown, with the baseline beside it if there is one."""
    lines = [f"# {TITLE[language]}", "", headline(record.head.where, language), ""]
    if not record.head.complete:
        lines += [UNFINISHED[language].format(record.head.ended), ""]
    lines += [" · ".join(filter(None, (f"`{record.head.command}`", record.head.begun, record.clip))), ""]
    for grid in grids(record, language):
        lines += [f"## {grid.title}", "", *_markdown(grid), ""]
    if baseline:
        lines += [f"## {AGAINST[language]}", ""]
        lines += [f"- {line}" for line in sides(baseline, record, language)]
        lines += [f"- {line}" for line in cautions(baseline, record, language)]
        lines += ["", *_markdown(against(baseline, record, language)), ""]
    return "\n".join([*lines, LEGEND[language], ""])


def sides(before: Benchmark, after: Benchmark, language: Language = "en") -> Iterator[str]:
    """What the baseline and what this was measured on."""
    for name, record in (("baseline", before), ("here", after)):
        where = record.head.where
        yield f"{NAMES[name][language]}: {headline(where, language)}" + (f" · {where.host}" if where.host else "")


def terminal(grid: BenchTable) -> Table:
    """A table for a terminal."""
    shown = table(*grid.columns)
    shown.title, shown.title_justify, shown.title_style = grid.title, "left", "bold"
    for row in grid.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown


def tabulated(grid: BenchTable) -> str:
    """A table of Markdown, without its title."""
    return "\n".join(_markdown(grid))


def _part(title: str, axis: str, figures: Sequence[Figure], language: Language) -> BenchTable:
    """Values alone where there is one sample of each, else how they spread."""
    spreading = any(figure.spread.count != 1 for figure in figures)
    first = ((axis,) if axis else ()) + (NAMES["quantity"][language],)
    names = (*STATISTICS, "count", "warmups", "outliers") if spreading else ("value",)
    rows = []
    for figure in figures:
        place = ("" if figure.at is None else f"{figure.at:g}",) if axis else ()
        values = _values(figure) if spreading else (amount(figure.spread.middle, figure.meaning.unit),)
        rows.append((*place, figure.meaning.name[language], *values))
    return BenchTable(title, first + tuple(NAMES[name][language] for name in names), tuple(rows))


def _sides(sides: Sequence[Where], language: Language) -> BenchTable:
    """What each engine of `vllm` was: a comparison is worth what is told of its sides."""
    rows = []
    for side in sides:
        packages = ", ".join(f"{name} {side.versions[name]}" for name in CALCULATING if name in side.versions)
        counting = [name for name in side.settings if side.engine == "vllm" or not name.startswith(OF_VLLM)]
        chosen = ", ".join(f"{name}={side.settings[name]}" for name in counting)
        rows.append((side.engine, f"{SILICON[side.silicon][language]} · {side.description}", packages, chosen))
    columns = tuple(NAMES[name][language] for name in ("engine", "device", "packages", "settings"))
    return BenchTable(BESIDE[language], columns, tuple(rows))


def _values(figure: Figure) -> tuple[str, ...]:
    spread, unit = figure.spread, figure.meaning.unit
    if spread.count == 1:
        return (amount(spread.middle, unit), *[UNKNOWN] * (len(STATISTICS) - 1), "1", str(figure.warmups), UNKNOWN)
    counts = (spread.count, figure.warmups, spread.outliers)
    return (
        *(amount(getattr(spread, name), unit) for name in STATISTICS),
        *(UNKNOWN if count is None else str(count) for count in counts),
    )


def _missing(before: Benchmark, after: Benchmark) -> list[str]:
    """Figures of the baseline that are not there, of parts of which others are."""
    parts = {part_of(figure.quantity) for figure in after.figures}
    keys = {figure.key for figure in after.figures}
    return [one.key for one in before.figures if one.key not in keys and part_of(one.quantity) in parts]


def _compared(one: FigureDifference, language: Language, *, judged: bool) -> tuple[str, ...]:
    meaning = one.after.meaning
    part = PARTS[one.key.partition("/")[0]]
    place = "" if one.after.at is None else f" ({part.axis[language]}: {one.after.at:g})"
    values = (amount(figure.spread.middle, meaning.unit) for figure in (one.before, one.after))
    verdict = VERDICTS[_verdict(one) if judged else ""][language]
    return (f"{part.name[language]}: {meaning.name[language]}{place}", *values, times(one.ratio), verdict)


def _verdict(one: FigureDifference) -> str:
    if one.worse is None:
        return ""
    if one.ratio == 1:
        return "same"
    if one.beyond_noise is None:
        return "few"
    return ("worse" if one.worse else "better") if one.beyond_noise else "noise"


def _markdown(grid: BenchTable) -> Iterator[str]:
    yield "| " + " | ".join(grid.columns) + " |"
    yield "|" + "---|" * len(grid.columns)
    for row in grid.rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
