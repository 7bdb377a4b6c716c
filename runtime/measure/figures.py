"""What a measurement found: a quantity, under which condition, all samples of it, and how they spread."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.measure.quantities import QUANTITIES, Quantity

FENCE = 1.5  # times the interquartile range beyond the quartiles: what is farther out is an outlier (Tukey)


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
    """Samples of a quantity of `runtime.measure.quantities`, in its unit; `at` is the place on its part's axis, such as
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
