"""Lines and axes of the benchmark's pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from env.translation import Bilingual, Language
from runtime.measure.bench.record import Benchmark
from runtime.measure.metrics import QUANTITIES, digits
from runtime.measure.statistics import FEWEST, Figure, interval

# Okabe and Ito's colours, which colour-blind people tell apart; shapes and lines differ as well.
BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"
BLACK, GREY = "#222222", "#6E6E6E"
NEAR = 1.5  # times the samples, within which a baseline is drawn beside them
WIDE = 8.0  # highest through lowest value from which on an axis is logarithmic


@dataclass(frozen=True)
class Scene:
    """What is drawn, in which language."""

    record: Benchmark
    baseline: Benchmark | None
    language: Language

    def figures(self, quantity: str) -> list[Figure]:
        """The figures of a quantity here, by their place."""
        return _of(self.record, quantity)

    def stated(self, quantity: str) -> list[Figure]:
        """The same of the baseline."""
        return _of(self.baseline, quantity) if self.baseline else []

    def name(self, quantity: str) -> str:
        """A quantity's name."""
        return self.words(QUANTITIES[quantity].name)

    def words(self, words: Bilingual) -> str:
        """The words in the language of the picture."""
        return words[self.language]


@dataclass(frozen=True)
class LineStyle:
    """How a line over figures looks: `style` as Matplotlib has it, `size` of the unit that is shown, which `statistic`
    of the figures' spread, and whether the values are written to its points."""

    label: str
    colour: str
    style: str
    size: float = 1.0
    statistic: str = "middle"
    named: bool = False

    def draw(self, axes: Axes, figures: Sequence[Figure]) -> None:
        """Over the places of figures; medians with their 95 % interval."""
        known = [(figure, value) for figure in figures if (value := getattr(figure.spread, self.statistic)) is not None]
        if not known:
            return
        places = [figure.at or 0.0 for figure, _ in known]
        values = [value / self.size for _, value in known]
        axes.plot(places, values, self.style, color=self.colour, label=self.label, markersize=6)
        for place, value, (figure, _) in zip(places, values, known, strict=True):
            if self.statistic == "middle" and len(figure.samples) >= FEWEST:
                low, high = interval(figure.samples)
                axes.plot([place] * 2, [low / self.size, high / self.size], color=self.colour, linewidth=1.2)
            if self.named:
                spot = {"xytext": (-4, 5), "textcoords": "offset points", "ha": "right", "fontsize": 8}
                axes.annotate(short(value), (place, value), color=self.colour, **spot)  # type: ignore[arg-type]


def doubling(axes: Axes, figures: Sequence[Figure], label: str) -> None:
    """A horizontal axis on which each doubling is a step, with a tick for each place."""
    ticks = sorted({figure.at for figure in figures if figure.at})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)
    axes.set_xlabel(label)


def fit(axes: Axes, values: Sequence[float]) -> None:
    """A vertical axis that is logarithmic where values lie wide apart, else begins at 0."""
    if max(values) > WIDE * min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.15 * max(values))


def around(samples: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that holds the samples, and the others where these are not so far off that the samples
    could not be told apart any more."""
    low, high = min(samples), max(samples)
    near = [other for other in others if low / NEAR <= other <= high * NEAR]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * (high - low) or 0.1 * high
    return low - margin, high + margin


def short(value: float) -> str:
    """With three significant digits and no zeros behind them."""
    text = digits(float(f"{value:.3g}"))
    return text.rstrip("0").rstrip(".") if "." in text else text


def _of(record: Benchmark, quantity: str) -> list[Figure]:
    found = (figure for figure in record.figures if figure.quantity == quantity)
    return sorted(found, key=lambda figure: figure.at or 0.0)
