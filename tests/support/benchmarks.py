"""A small benchmark of the demo model, for the tests of what is made of one."""

from collections.abc import Iterable
from dataclasses import replace

from env.settings import Settings
from runtime.measure.bench.record import Absent, Benchmark, Found, Plan
from runtime.measure.bench.run import QUICK, BenchObserver, run
from runtime.measure.statistics import Figure, figure

SMALL = replace(QUICK, parts=("loading", "latency", "throughput", "memory"), runs=4, batches=(1, 2), lengths=(2.0,))


def small(settings: Settings) -> Benchmark:
    """What the small plan finds."""
    return run(settings, SMALL, BenchObserver())


def times_as(record: Benchmark, ratio: float, *quantities: str) -> Benchmark:
    """The record with samples of these quantities so many times as large."""

    def changed(one: Figure) -> Figure:
        if one.quantity not in quantities:
            return one
        return figure(one.quantity, [ratio * sample for sample in one.samples], at=one.at, warmups=one.warmups)

    return replace(record, figures=tuple(changed(one) for one in record.figures))


PLAN = Plan(parts=(), runs=3, warmups=1, batches=(1, 2), lengths=(2.0, 4.0), minutes=(0.1,))


def figures(found: Iterable[Found]) -> dict[str, Figure]:
    return {one.key: one for one in found if isinstance(one, Figure)}


def absences(found: Iterable[Found]) -> dict[str, Absent]:
    return {one.what: one for one in found if isinstance(one, Absent)}
