"""`invoke bench`: measures, prints, keeps, and says whether that is a failure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from env.settings import Settings
from runtime.files import write_whole
from runtime.measure import records
from runtime.measure.bench import judging, present, sizing
from runtime.measure.bench.planning import Order
from runtime.measure.bench.record import Benchmark
from runtime.measure.bench.run import INTERRUPTED, Listener, run
from runtime.measure.comparing import Difference, compare
from runtime.measure.numbers import times
from runtime.measure.present import ran_on
from runtime.measure.where import Where
from runtime.progress import telling
from runtime.tables import console


@dataclass(frozen=True)
class Failure:
    """Why a benchmark fails, and the exit code."""

    reason: str
    code: int


def carry_out(order: Order, settings: Settings) -> Failure | None:
    """Measure what is ordered; None where all is well. Raises what `run` raises, but for KeyboardInterrupt."""
    out = console()

    def begins(where: Where, clip: str) -> None:
        if order.baseline and order.allowed is not None:
            judging.check(order.baseline, where, clip)
        tell("")
        _say(out, ran_on(where), f"{where.model}, {where.dtype}" + (f", {clip}" if clip else ""))

    try:
        with telling() as tell:
            record = run(
                settings, order.plan, Listener(begins, tell, lambda so_far: records.write(order.record, so_far))
            )
    except KeyboardInterrupt:
        return Failure(f"{INTERRUPTED} before anything was measured", 130)
    for grid in present.grids(record):
        out.print(present.terminal(grid), "")
    for grid, how in sizing.grids(record):
        out.print(present.terminal(grid))
        _say(out, how, "")
    if order.baseline:
        _compare(out, order.baseline, record)
    _say(out, f"Written to {order.directory}: {', '.join(path.name for path in _keep(record, order))}")
    return _failure(record, order, out)


def _keep(record: Benchmark, order: Order) -> Sequence[Path]:
    """Write the plots, and the page that shows them, beside the record."""
    from runtime.measure.bench import plots

    drawn = plots.write(record, order.directory, baseline=order.baseline)
    page = order.directory / "bench.md"
    shown = "".join(f"\n![{path.stem}]({path.name})\n" for path in drawn if path.suffix == ".png")
    write_whole(page, present.markdown(record, baseline=order.baseline) + sizing.markdown(record) + shown)
    return [order.record, page, *drawn]


def _compare(out: Console, baseline: Benchmark, record: Benchmark) -> None:
    out.print(present.terminal(present.against(baseline, record)), "")
    _say(out, *present.sides(baseline, record))
    for line in present.cautions(baseline, record):
        out.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _failure(record: Benchmark, order: Order, out: Console) -> Failure | None:
    if not record.head.complete:
        return Failure(f"{record.head.ended}; what was measured is kept in {order.record}", 130)
    if not record.figures:
        return Failure("nothing could be measured, for the reasons above", 1)
    if not order.baseline or order.allowed is None:
        return None
    differences = compare(order.baseline.figures, record.figures)
    if not differences:
        return Failure(f"{judging.FLAG} had nothing to judge: the baseline has none of these figures", 1)
    judgement = judging.judge(differences, order.allowed)
    if judgement.undecided:
        _say(out, f"Worse, but of too few samples to tell: {_told(judgement.undecided)}")
    if judgement.slower:
        return Failure(f"worse than the baseline by more than {100 * order.allowed:g}%: {_told(judgement.slower)}", 1)
    _say(out, f"Nothing is worse than the baseline by more than {100 * order.allowed:g}%, and noise.")
    return None


def _told(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{one.key} {times(one.ratio)}" for one in differences)


def _say(out: Console, *lines: str) -> None:
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
