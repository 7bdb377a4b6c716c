"""Two measurements side by side: ratios, which way is better, and what is more than noise."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from runtime.measure.bench.record import read
from runtime.measure.statistics import Figure, FigureDifference, Spread, apart, compare, figure, interval


def one(quantity: str, before: Sequence[float], after: Sequence[float]) -> FigureDifference:
    (difference,) = compare([figure(quantity, before)], [figure(quantity, after)])
    return difference


def test_figures_are_paired_by_quantity_and_place() -> None:
    before = [figure("throughput/speed", [2.0], at=at) for at in (1, 2, 4)] + [figure("latency/total", [1.0])]
    after = [figure("throughput/speed", [3.0], at=at) for at in (8, 4, 2)]
    assert [(found.key, found.ratio) for found in compare(before, after)] == [
        ("throughput/speed@4", 1.5),
        ("throughput/speed@2", 1.5),
    ]


@pytest.mark.parametrize(
    ("quantity", "before", "after", "worse", "setback"),
    [
        ("latency/total", 1.0, 1.1, True, 0.1),
        ("latency/total", 1.1, 1.0, False, 1 / 1.1 - 1),
        ("throughput/speed", 1.1, 1.0, True, 0.1),
        ("throughput/speed", 1.0, 1.1, False, 1 / 1.1 - 1),
        ("throughput/speed", 1.0, 0.0, True, math.inf),
        ("closed/errors", 0.0, 3.0, True, math.inf),
        ("closed/errors", 0.0, 0.0, False, 0.0),
        ("memory/device-total", 1.0, 2.0, None, 0.0),
    ],
)
def test_worse_goes_by_the_quantity(
    quantity: str, before: float, after: float, worse: bool | None, setback: float
) -> None:
    found = one(quantity, [before], [after])
    assert found.worse is worse
    assert found.setback == pytest.approx(setback)
    assert found.ratio == (after / before if before else None)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([3.0], (3.0, 3.0)),
        ([5.0, 1.0, 3.0], (1.0, 5.0)),
        # Of 9 samples the median lies between the second of each end with a confidence of 1 - 20/512, 96 %; of 20
        # between the sixth of each end, 95.9 %.
        (range(1, 10), (2, 8)),
        (range(1, 21), (6, 15)),
    ],
)
def test_the_interval_of_a_median(samples: Sequence[float], expected: tuple[float, float]) -> None:
    assert interval(samples) == expected


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    chance = random.Random(7)
    held = 0
    for _ in range(1000):
        low, high = interval([chance.lognormvariate(0, 0.5) for _ in range(20)])
        held += low <= 1 <= high
    assert held >= 950


def test_noise_is_what_the_samples_show() -> None:
    quiet, noisy = [1.0, 1.01, 0.99, 1.0, 1.02], [1.0, 1.5, 0.7, 1.2, 0.9]
    assert one("latency/total", quiet, [1.2 * sample for sample in quiet]).beyond_noise is True
    assert one("latency/total", noisy, [1.2 * sample for sample in noisy]).beyond_noise is False
    assert one("latency/total", quiet, quiet).beyond_noise is False


def test_few_samples_tell_nothing_and_a_statement_is_exact() -> None:
    samples = [1.0, 1.01, 0.99, 1.0]
    assert one("latency/total", [1.0, 1.0, 1.0], [2.0] * 5).beyond_noise is None
    assert one("loading/seconds", [1.0], [2.0]).beyond_noise is None
    stated = Figure("latency/total", None, Spread(mean=1.005))
    for value, beyond in ((1.005, False), (1.2, True)):
        (found,) = compare([replace(stated, spread=Spread(p50=value))], [figure("latency/total", samples)])
        assert found.beyond_noise is beyond
    assert compare([stated], [stated])[0].beyond_noise is None
    assert compare([replace(stated, spread=Spread(p90=1.0))], [stated]) == []


def test_what_was_measured_with_other_things_is_told_apart() -> None:
    seed = read("seed").head.where
    assert apart(seed, replace(seed, model="weights/Qwen3-ASR-1.7B", host="other", versions={})) == []
    found = apart(seed, replace(seed, silicon="simulated NPU", dtype="float16", model="demo"))
    assert [(each.what.en, each.before, each.after) for each in found] == [
        ("silicon", "NPU", "simulated NPU"),
        ("model", "Qwen3-ASR-1.7B", "demo"),
        ("number format", "bfloat16", "float16"),
    ]
