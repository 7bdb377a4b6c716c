"""What a measurement found: a quantity, under which condition, all samples of it, and how they spread."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from env.translation import Bilingual, translated
from runtime.measure.metrics import QUANTITIES, Quantity
from runtime.measure.records import Where

FENCE = 1.5  # times the interquartile range beyond the quartiles: what is farther out is an outlier (Tukey)

CONFIDENCE = 0.95  # of an interval of the median
FEWEST = 4  # samples that show noise: all 4 of one run below all 4 of another comes by chance 2 times in 70

Interval = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """How samples lie; None where a source states no such figure. `deviation` is the samples' standard deviation."""

    count: int | None = None
    mean: float | None = None
    minimum: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    maximum: float | None = None
    deviation: float | None = None
    outliers: int | None = None

    @property
    def middle(self) -> float:
        """The figure that stands for all: the median, else the mean. Raises ValueError where neither is known."""
        for found in (self.p50, self.mean):
            if found is not None:
                return found
        raise ValueError("neither median nor mean")


@dataclass(frozen=True)
class Figure:
    """Samples of a quantity of `runtime.measure.metrics`, in its unit; `at` is the place on its part's axis, such as
    the utterances in a batch, None where there is none. Samples are in the order of measuring, empty where a source has
    none; `warmups` were made before and are not among them."""

    quantity: str
    at: float | None
    spread: Spread
    samples: tuple[float, ...] = ()
    warmups: int = 0

    @property
    def key(self) -> str:
        """What pairs it with the same figure of another run, such as `throughput/speed@8`."""
        return self.quantity if self.at is None else f"{self.quantity}@{self.at:g}"

    @property
    def meaning(self) -> Quantity:
        """Its unit, which way is better, its name."""
        return QUANTITIES[self.quantity]


def figure(quantity: str, samples: Sequence[float], *, at: float | None = None, warmups: int = 0) -> Figure:
    """A figure of one sample or more. Raises KeyError for a quantity that is not listed."""
    assert quantity in QUANTITIES, quantity
    return Figure(quantity, at, spread(samples), tuple(samples), warmups)


def spread(samples: Sequence[float]) -> Spread:
    """How one sample or more lie. Percentiles are interpolated between samples."""
    ordered = sorted(samples)
    cuts = statistics.quantiles(ordered, n=100, method="inclusive") if len(ordered) > 1 else ordered * 99
    reach = FENCE * (cuts[74] - cuts[24])
    return Spread(
        count=len(ordered),
        mean=statistics.fmean(ordered),
        minimum=ordered[0],
        p50=cuts[49],
        p90=cuts[89],
        p95=cuts[94],
        p99=cuts[98],
        maximum=ordered[-1],
        deviation=statistics.stdev(ordered) if len(ordered) > 1 else None,
        outliers=sum(not cuts[24] - reach <= sample <= cuts[74] + reach for sample in ordered),
    )


@dataclass(frozen=True)
class FigureDifference:
    """The same figure twice. `ratio` is after through before, None where before is 0; `beyond_noise` None: too few
    samples to tell; `worse` None: neither way is better."""

    key: str
    before: Figure
    after: Figure
    ratio: float | None
    beyond_noise: bool | None
    worse: bool | None

    @property
    def setback(self) -> float:
        """How much worse it became: 0.1 is a tenth more of what shall be low, or what shall be high divided by 1.1, so
        that a time and its inverse are judged alike. Negative: better; 0 where neither way is."""
        one, other = self.before.spread.middle, self.after.spread.middle
        if self.before.meaning.better == "higher":
            one, other = other, one
        if not self.before.meaning.better or one == other:
            return 0.0
        return other / one - 1 if one else math.inf


@dataclass(frozen=True)
class Apart:
    """What differs in what was measured with, so that a ratio says nothing of the software alone."""

    what: Bilingual
    before: str
    after: str


def compare(before: Sequence[Figure], after: Sequence[Figure]) -> list[FigureDifference]:
    """All figures that both have and that have a middle, in the order of `after`."""
    known = {figure.key: figure for figure in before if _stated(figure)}
    return [_difference(known[figure.key], figure) for figure in after if figure.key in known and _stated(figure)]


def apart(before: Where, after: Where) -> list[Apart]:
    """What of silicon, device, model and number format differs. Models are told apart by the last part of their name,
    as the same weights lie in different directories."""
    asked = (
        (translated("silicon"), before.silicon, after.silicon),
        (translated("device"), before.description, after.description),
        (translated("model"), PurePath(before.model).name, PurePath(after.model).name),
        (translated("number format"), before.dtype, after.dtype),
    )
    return [Apart(what, one, other) for what, one, other in asked if one.lower() != other.lower()]


def interval(samples: Sequence[float]) -> Interval:
    """Where the median lies, with CONFIDENCE: from the k-th lowest to the k-th highest sample, by the binomial
    distribution. Of fewer than 6 samples it is their range, whose confidence is lower."""
    ordered, count = sorted(samples), len(samples)
    below, rank = 0.0, 0
    for k in range(count):
        below += math.comb(count, k) / 2**count
        if below > (1 - CONFIDENCE) / 2:
            break
        rank = k
    return ordered[rank], ordered[-1 - rank]


def _difference(before: Figure, after: Figure) -> FigureDifference:
    one, other = before.spread.middle, after.spread.middle
    ratio = other / one if one else None
    better = before.meaning.better
    worse = (other > one if better == "lower" else other < one) if better else None
    return FigureDifference(after.key, before, after, ratio, _beyond_noise(before, after), worse)


def _beyond_noise(before: Figure, after: Figure) -> bool | None:
    """A side without samples is a source's statement, and counts as exact."""
    sides = [figure.samples for figure in (before, after)]
    if not any(sides) or any(0 < len(samples) < FEWEST for samples in sides):
        return None
    (low, high), (other_low, other_high) = (
        interval(figure.samples) if figure.samples else (figure.spread.middle,) * 2 for figure in (before, after)
    )
    return high < other_low or other_high < low


def _stated(figure: Figure) -> bool:
    return figure.spread.p50 is not None or figure.spread.mean is not None
