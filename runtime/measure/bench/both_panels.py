"""The picture of both engines side by side: a lone clip's latency, then throughput and waiting times under load."""

from collections.abc import Callable

from matplotlib.axes import Axes

from runtime.measure.bench.drawing import BLACK, BLUE, GREEN, Scene, short
from runtime.measure.figures import Figure
from runtime.measure.numbers import amount, scale
from runtime.measure.quantities import PARTS, Words

ENGINES = {"transformers": ("transformers", BLUE), "vllm": ("vLLM", GREEN)}  # as they are shown
ALONE = Words("one clip: each request", "单条音频:各次请求")
SPEED = Words("seconds of audio per second", "每秒处理的音频秒数")
FIRST = Words("time to first token, median and p95", "首 token 时间,中位数与 p95")

Bars = tuple[list[Figure], ...]  # by engine, each by the number of clients


def panels(scene: Scene) -> list[Callable[[Axes], None]]:
    """Those for which both engines have figures."""
    alone = [scene.figures(f"vllm/alone/{engine}-latency") for engine in ENGINES]
    load = {key: tuple(scene.figures(f"vllm/load/{engine}-{key}") for engine in ENGINES) for key in KEYS}
    found = [_alone(scene, [figure for (figure,) in alone])] if all(alone) else []
    return found + [_load(scene, key, bars) for key, bars in load.items() if all(bars)]


def _alone(scene: Scene, figures: list[Figure]) -> Callable[[Axes], None]:
    unit = scale(max(figure.spread.middle for figure in figures), "s")

    def draw(axes: Axes) -> None:
        axes.set_title(f"{scene.words(ALONE)} ({unit.symbol})")
        for height, (figure, (_, colour)) in enumerate(zip(figures, ENGINES.values(), strict=True)):
            across = [height + 0.05 * ((7 * number) % 11 - 5) for number in range(len(figure.samples))]
            axes.plot([one / unit.size for one in figure.samples], across, "o", color=colour, alpha=0.4, markersize=4)
            middle = figure.spread.middle
            axes.plot([middle / unit.size] * 2, [height - 0.3, height + 0.3], color=BLACK, linewidth=2.4)
            text = f"p50 {amount(middle, 's')}"
            axes.text(0.01, height - 0.36, text, transform=axes.get_yaxis_transform(), fontsize=9, va="bottom")
        axes.set_yticks(range(len(figures)), [name for name, _ in ENGINES.values()])
        axes.set_ylim(len(figures) - 0.4, -0.7)
        axes.set_xlim(left=0)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")

    return draw


def _load(scene: Scene, key: str, bars: Bars) -> Callable[[Axes], None]:
    """Bars for each number of clients, one an engine; of times with their 95th percentile above."""
    title, unit_name = KEYS[key]
    unit = scale(max(figure.spread.middle for figures in bars for figure in figures), unit_name)

    def draw(axes: Axes) -> None:
        axes.set_title(f"{scene.words(title)} ({unit.symbol})")
        for side, (figures, (name, colour)) in enumerate(zip(bars, ENGINES.values(), strict=True)):
            places = [number + 0.4 * side - 0.2 for number in range(len(figures))]
            middles = [figure.spread.middle / unit.size for figure in figures]
            drawn = axes.bar(places, middles, 0.38, color=colour, label=name)
            axes.bar_label(drawn, [short(middle) for middle in middles], label_type="center", color="white", fontsize=9)
            high = [(figure.spread.p95 or 0.0) / unit.size for figure in figures]
            if unit_name == "s":
                axes.plot(places, high, "_", color=BLACK, markersize=14)
        clients = [f"{figure.at:g}" for figure in bars[0]]
        axes.set_xticks(range(len(clients)), clients)
        axes.set_xlabel(scene.words(PARTS["vllm"].axis))
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
        axes.legend()

    return draw


KEYS: dict[str, tuple[Words, str]] = {"throughput": (SPEED, "x"), "first-token": (FIRST, "s")}
