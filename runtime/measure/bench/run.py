"""Runs the parts of a benchmark, one after another; what one cannot measure, or a Ctrl-C, leaves what was found."""

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from env.errors import KitError, UsageError
from env.settings import Settings
from runtime.files import make_private, write_whole
from runtime.measure import records
from runtime.measure.bench import record as judging
from runtime.measure.bench import sizing, tables
from runtime.measure.bench.in_process import chosen
from runtime.measure.bench.record import BENCH, FILE, Absent, Bench, Benchmark, Found, Plan, benchmark, read
from runtime.measure.metrics import times
from runtime.measure.records import COMPLETE, RunClock, Where
from runtime.measure.smoke.record import ran_on
from runtime.measure.statistics import FigureDifference, compare
from runtime.progress import status_line
from runtime.tables import console

RUNS = "runs"  # Head.ended of a record whose run goes on, or was killed
INTERRUPTED = "interrupted"  # how Head.ended begins where Ctrl-C ended the run

# What can be asked for, in the order in which it is measured: a module of this package and its function. They are
# imported when their turn has come, as some import torch, which the device must precede. Loading has none, as whatever
# is measured, the model is loaded and unloaded for it.
TABLE: dict[str, tuple[str, str] | None] = {
    "loading": None,
    "latency": ("in_process", "measure_latency"),
    "throughput": ("in_process", "measure_throughput"),
    "memory": ("resources", "measure_memory"),
    "long": ("resources", "measure_long_audio"),
    "closed": ("serving", "closed"),
    "open": ("serving", "arriving"),
    "engines": ("comparison", "measure_versus"),
    "vllm": ("engines", "measure_engines"),
}

FULL = Plan(parts=tuple(TABLE))
# About a minute on a laptop, with the demo model: for a look, and for CI. Without the parts that load other engines.
QUICK = replace(
    FULL,
    parts=tuple(part for part in TABLE if part not in ("engines", "vllm")),
    runs=5,
    warmups=1,
    batches=(1, 2, 4),
    lengths=(5.0, 10.0),
    minutes=(1.0,),
    clients=(1, 4),
    requests=16,
)

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class BenchObserver:
    """Whom a run tells: `begins` where it measures and which clip it hears, before anything is measured, which may
    raise KitError to prevent it; `tells` how far it is; `keeps` the record so far, after each part, and at the end."""

    begins: Callable[[Where, str], None] = lambda _, __: None
    tells: Callable[[str], None] = lambda _: None
    keeps: Callable[[Benchmark], None] = lambda _: None


def run(settings: Settings, plan: Plan, listener: BenchObserver) -> Benchmark:
    """Measure what is planned. A part that cannot be measured is absent, with the reason; where Ctrl-C ends the run,
    its record says so. Raises KitError where the model cannot be loaded or the server asked for does not answer, and
    KeyboardInterrupt before anything is measured."""
    clock, stage = RunClock(), "loading"
    clip = "" if plan.url else chosen(settings, plan.clip).name
    found: list[Found] = []
    place: Where | None = None

    def keep(ended: str) -> Benchmark:
        assert place
        record = benchmark(clock.head(BENCH, place, ended=ended), plan, found, clip=clip)
        listener.keeps(record)
        return record

    listener.tells("loading: measuring")
    try:
        with _opened(settings, plan, found, listener.tells) as (bench, place):
            listener.begins(place, clip)
            for stage in plan.parts:
                listener.tells(f"{stage}: measuring")
                for one in _measured(stage, bench):
                    found.append(one)
                keep(RUNS)
            stage = "unloading"
        return keep(COMPLETE)
    except KitError:
        raise
    except BaseException as error:
        if place is None:
            raise
        interrupted = isinstance(error, KeyboardInterrupt)
        record = keep(f"{INTERRUPTED if interrupted else f'failed ({type(error).__name__})'} in {stage}")
        if not interrupted:
            raise
        return record


@contextmanager
def _opened(
    settings: Settings, plan: Plan, found: list[Found], tell: Callable[[str], None]
) -> Iterator[tuple[Bench, Where]]:
    """The model loaded, or the server found that the plan names; and where it is."""
    if plan.url:
        from runtime.measure.client import RemoteServer

        with RemoteServer(plan.url) as server:
            server.check_ready()
            place = server.where()
        yield Bench(None, plan, tell), place
        return
    from runtime.measure.bench import resources

    with resources.opened(settings, found, tell) as transcriber:
        yield Bench(transcriber, plan, tell), records.of(transcriber)


def _measured(part: str, bench: Bench) -> Iterator[Found]:
    place = TABLE[part]
    if place is None:
        return
    module, function = place
    try:
        yield from getattr(importlib.import_module(f"{__package__}.{module}"), function)(bench)
    except KitError as error:
        yield Absent(part, f"{error.subject}: {error.reason}", error.advice)


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, the directory that the results go to, what to print beside them, and by how much they may be
    worse than that, a share; None: by any amount."""

    plan: Plan
    directory: Path
    baseline: Benchmark | None
    allowed: float | None

    @property
    def record(self) -> Path:
        """The record's file."""
        return self.directory / FILE


def plan(typed: Mapping[str, str], settings: Settings, *, quick: bool = False) -> Plan:
    """The plan from flags by their names, of which empty ones leave what a full or a quick plan has. Raises UsageError
    naming flag, value and what was expected."""
    given = {name: value.strip() for name, value in typed.items() if value}
    chosen: dict[str, Any] = {name: READERS[name](f"--{name}", value, settings) for name, value in given.items()}
    return replace(QUICK if quick else FULL, **chosen)


def order(plan: Plan, directory: Path, *, baseline: str, fail_if_slower: str) -> BenchOptions:
    """The plan with what `--baseline` and `--fail-if-slower` name, empty for nothing, and a directory that is there.
    Raises UsageError."""
    if fail_if_slower and not baseline:
        raise UsageError(judging.FLAG, "needs something to compare with", "add --baseline FILE, or --baseline seed")
    allowed = judging.tolerance(fail_if_slower) if fail_if_slower else None
    try:
        before = read(baseline) if baseline else None
    except KitError as error:
        raise UsageError("--baseline", f"{error.subject}: {error.reason}", error.advice) from None
    try:
        make_private(directory)
    except OSError as error:
        raise UsageError("--output", f"{directory} cannot be made: {error.strerror}") from None
    if not os.access(directory, os.W_OK):
        raise UsageError("--output", f"{directory} cannot be written to")
    return BenchOptions(plan, directory, before, allowed)


def _parts(flag: str, value: str, _: Settings) -> tuple[str, ...]:
    asked = _words(flag, value)
    for name in asked:
        if name not in TABLE:
            raise UsageError(flag, f"there is no part {name!r}, choose from: {', '.join(TABLE)}")
    return tuple(name for name in TABLE if name in asked)


def _clip(flag: str, value: str, settings: Settings) -> Path:
    from runtime import audio
    from runtime.transcriber import limits

    path = Path(value)
    if not path.is_file():
        raise UsageError(flag, f"{value}: {'is a directory' if path.is_dir() else 'no such file'}, expected audio")
    try:
        audio.load(path, limits=limits(settings))
    except KitError as error:
        raise UsageError(flag, str(error)) from None
    return path


def _url(_: str, value: str, __: Settings) -> str:
    from runtime.measure.client import RemoteServer

    with RemoteServer(value) as server:  # which refuses what is no server's address
        return server.url


def _whole(least: int, most: int) -> Callable[[str, str, Settings], int]:
    return lambda flag, value, _: _number(flag, value, int, least, most)


def _wholes(most: int) -> Callable[[str, str, Settings], tuple[int, ...]]:
    return lambda flag, value, _: _numbers(flag, value, int, 1, most)


def _amounts(least: float, most: float) -> Callable[[str, str, Settings], tuple[float, ...]]:
    return lambda flag, value, _: _numbers(flag, value, float, least, most)


def _numbers(flag: str, value: str, kind: type[Number], least: float, most: float) -> tuple[Number, ...]:
    """Numbers in order, each once."""
    return tuple(sorted({_number(flag, word, kind, least, most) for word in _words(flag, value)}))


def _number(flag: str, value: str, kind: type[Number], least: float, most: float) -> Number:
    try:
        number = kind(value)
    except ValueError:
        number = kind(-1)
    if not (math.isfinite(number) and least <= number <= most):
        what = "a whole number" if kind is int else "a number"
        raise UsageError(flag, f"{value!r}, expected {what} of {least:g} to {most:g}")
    return number


def _words(flag: str, value: str) -> list[str]:
    words = [word.strip() for word in value.split(",")]
    if not all(words):
        raise UsageError(flag, f"{value!r} has an empty place, expected values with commas between them")
    return words


# By the names of the plan's fields, which are those of the flags.
READERS: dict[str, Callable[[str, str, Settings], object]] = {
    "parts": _parts,
    "runs": _whole(1, 100_000),
    "warmups": _whole(0, 1000),
    "clip": _clip,
    "batches": _wholes(4096),
    "lengths": _amounts(0.5, 14_400),
    "minutes": _amounts(0.1, 240),
    "clients": _wholes(1024),
    "rates": _amounts(0.01, 1000),
    "requests": _whole(1, 100_000),
    "url": _url,
}


@dataclass(frozen=True)
class BenchFailure:
    """Why a benchmark fails, and the exit code."""

    reason: str
    code: int


def carry_out(order: BenchOptions, settings: Settings) -> BenchFailure | None:
    """Measure what is ordered; None where all is well. Raises what `run` raises, but for KeyboardInterrupt."""
    out = console()

    def begins(where: Where, clip: str) -> None:
        if order.baseline and order.allowed is not None:
            judging.check(order.baseline, where, clip)
        line.show("")
        _say(out, ran_on(where), f"{where.model}, {where.dtype}" + (f", {clip}" if clip else ""))

    try:
        with status_line(animated=False) as line:
            observer = BenchObserver(begins, line.show, lambda so_far: records.write(order.record, so_far))
            record = run(settings, order.plan, observer)
    except KeyboardInterrupt:
        return BenchFailure(f"{INTERRUPTED} before anything was measured", 130)
    for grid in tables.grids(record):
        out.print(tables.terminal(grid), "")
    for grid, how in sizing.grids(record):
        out.print(tables.terminal(grid))
        _say(out, how, "")
    if order.baseline:
        _compare(out, order.baseline, record)
    _say(out, f"Written to {order.directory}: {', '.join(path.name for path in _keep(record, order))}")
    return _failure(record, order, out)


def _keep(record: Benchmark, order: BenchOptions) -> Sequence[Path]:
    """Write the plots, and the page that shows them, beside the record."""
    from runtime.measure.bench import plots

    drawn = plots.write(record, order.directory, baseline=order.baseline)
    page = order.directory / "bench.md"
    shown = "".join(f"\n![{path.stem}]({path.name})\n" for path in drawn if path.suffix == ".png")
    write_whole(page, tables.markdown(record, baseline=order.baseline) + sizing.markdown(record) + shown)
    return [order.record, page, *drawn]


def _compare(out: Console, baseline: Benchmark, record: Benchmark) -> None:
    out.print(tables.terminal(tables.against(baseline, record)), "")
    _say(out, *tables.sides(baseline, record))
    for line in tables.cautions(baseline, record):
        out.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _failure(record: Benchmark, order: BenchOptions, out: Console) -> BenchFailure | None:
    if not record.head.complete:
        return BenchFailure(f"{record.head.ended}; what was measured is kept in {order.record}", 130)
    if not record.figures:
        return BenchFailure("nothing could be measured, for the reasons above", 1)
    if not order.baseline or order.allowed is None:
        return None
    differences = compare(order.baseline.figures, record.figures)
    if not differences:
        return BenchFailure(f"{judging.FLAG} had nothing to judge: the baseline has none of these figures", 1)
    judgement = judging.judge(differences, order.allowed)
    if judgement.undecided:
        _say(out, f"Worse, but of too few samples to tell: {_told(judgement.undecided)}")
    if judgement.slower:
        return BenchFailure(
            f"worse than the baseline by more than {100 * order.allowed:g}%: {_told(judgement.slower)}", 1
        )
    _say(out, f"Nothing is worse than the baseline by more than {100 * order.allowed:g}%, and noise.")
    return None


def _told(differences: Sequence[FigureDifference]) -> str:
    return ", ".join(f"{one.key} {times(one.ratio)}" for one in differences)


def _say(out: Console, *lines: str) -> None:
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
