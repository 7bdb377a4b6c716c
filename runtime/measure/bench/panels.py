"""What each picture of a benchmark shows: a list of panels, empty where there are no figures for it."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from matplotlib.axes import Axes

from runtime.measure.bench.both_panels import panels as both_panels
from runtime.measure.bench.drawing import BLACK, BLUE, GREEN, GREY, RED, Line, Scene, around, doubling, fit
from runtime.measure.figures import Figure
from runtime.measure.numbers import amount, scale
from runtime.measure.quantities import PARTS, Words

Which = Literal["latency", "throughput", "closed", "open", "memory", "vllm"]
Panel = Callable[[Axes], None]

STAGES = ("audio", "features", "encoder", "prefill", "tokens", "text")

RUNS = Words("each run", "每次运行")
SPLIT = Words("where the time goes (medians)", "各阶段耗时(中位数)")
HERE = Words("here", "本次")
BASELINE = Words("baseline", "基线")
OUTSIDE = Words("beyond this axis", "超出坐标范围")
IDEAL = Words("ideal: batch 1's, times the batch", "理想:批大小 1 的线性放大")
SPEED = Words("seconds of audio per second", "每秒处理的音频秒数")
MEAN = Words("mean", "均值")
FAILED = Words("requests failed", "有请求失败")


def _latency(scene: Scene) -> list[Panel]:
    totals = [figure for figure in scene.figures("latency/total") if figure.samples]
    if not totals:
        return []
    (total,), stated = totals, scene.stated("latency/total")
    unit = scale(total.spread.middle, "s")
    rows = [(HERE, total, BLUE), *((BASELINE, figure, RED) for figure in stated)]

    def runs(axes: Axes) -> None:
        axes.set_title(scene.words(RUNS))
        low, high = around(total.samples, [figure.spread.middle for figure in stated])
        for height, (_, figure, colour) in enumerate(rows):
            across = [height + 0.05 * ((7 * number) % 11 - 5) for number in range(len(figure.samples))]
            axes.plot([one / unit.size for one in figure.samples], across, "o", color=colour, alpha=0.4, markersize=4)
            outside = "" if low <= figure.spread.middle <= high else scene.words(OUTSIDE)
            _percentiles(axes, figure, height, unit.size, outside)
        axes.set_yticks(range(len(rows)), [scene.words(name) for name, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.7)
        axes.set_xlim(low / unit.size, high / unit.size)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(unit.symbol)

    stages = [figure for name in STAGES for figure in scene.figures(f"latency/{name}")]

    def split(axes: Axes) -> None:
        middles = [figure.spread.middle for figure in stages]
        axes.set_title(scene.words(SPLIT))
        bars = axes.barh(range(len(stages)), [middle / unit.size for middle in middles], color=BLUE, height=0.6)
        axes.bar_label(bars, [f"{amount(middle, 's')} ({middle / sum(middles):.0%})" for middle in middles], padding=4)
        axes.set_yticks(range(len(stages)), [scene.name(figure.quantity) for figure in stages])
        axes.invert_yaxis()
        axes.margins(x=0.4)
        axes.grid(visible=False)
        axes.set_xlabel(unit.symbol)

    return [runs, split] if stages else [runs]


def _percentiles(axes: Axes, figure: Figure, height: int, size: float, remark: str) -> None:
    """Marks of p50, p90 and p99, with their values above, and a remark."""
    told = [(name, value) for name in ("p50", "p90", "p99") if (value := getattr(figure.spread, name)) is not None]
    for name, value in told:
        width = 2.4 if name == "p50" else 1.0
        axes.plot([value / size] * 2, [height - 0.3, height + 0.3], color=BLACK, linewidth=width)
    text = " · ".join([*(f"{name} {amount(value, 's')}" for name, value in told), *filter(None, [remark])])
    axes.text(0.01, height - 0.36, text, transform=axes.get_yaxis_transform(), fontsize=9, va="bottom")


def _throughput(scene: Scene) -> list[Panel]:
    here, stated = scene.figures("throughput/speed"), scene.stated("throughput/speed")

    def draw(axes: Axes) -> None:
        Line(scene.words(HERE), BLUE, "o-", named=True).draw(axes, here)
        Line(scene.words(BASELINE), RED, "s--", named=True).draw(axes, stated)
        top = 1.15 * axes.get_ylim()[1]
        if here[0].at == 1:
            doublings = math.log2(max(figure.at or 1.0 for figure in here))
            batches = [2 ** (doublings * step / 50) for step in range(51)]
            ideal = [here[0].spread.middle * batch for batch in batches]
            axes.plot(batches, ideal, ":", color=GREY, linewidth=1.2, label=scene.words(IDEAL))
        axes.set_ylim(0, top)
        axes.set_ylabel(scene.words(SPEED))
        doubling(axes, (*here, *stated), scene.words(PARTS["throughput"].axis))
        axes.legend()

    return [draw] if here else []


def _served(part: str) -> Callable[[Scene], list[Panel]]:
    def panels(scene: Scene) -> list[Panel]:
        first, speed = scene.figures(f"{part}/first-token"), scene.figures(f"{part}/throughput")
        earlier, earlier_speed = scene.stated(f"{part}/first-token"), scene.stated(f"{part}/throughput")
        failed = {figure.at for figure in scene.figures(f"{part}/errors") if figure.spread.middle > 0}
        axis = scene.words(PARTS[part].axis)

        def waiting(axes: Axes) -> None:
            unit = scale(max(figure.spread.middle for figure in first), "s")
            axes.set_title(f"{scene.name(f'{part}/first-token')} ({unit.symbol})")
            Line(scene.words(MEAN), BLUE, "o-", unit.size, "mean").draw(axes, first)
            Line("p95", BLUE, "^--", unit.size, "p95").draw(axes, first)
            Line(f"{scene.words(BASELINE)}, {scene.words(MEAN)}", RED, "s-", unit.size, "mean").draw(axes, earlier)
            shown = [value for one in (*first, *earlier) for value in (one.spread.mean, one.spread.p95)]
            fit(axes, [value / unit.size for value in shown if value is not None])
            doubling(axes, (*first, *earlier), axis)
            axes.legend()

        def working(axes: Axes) -> None:
            axes.set_title(scene.words(SPEED))
            Line(scene.words(HERE), BLUE, "o-", named=True).draw(axes, speed)
            Line(scene.words(BASELINE), RED, "s--").draw(axes, earlier_speed)
            Line(scene.words(FAILED), BLACK, "X").draw(axes, [figure for figure in speed if figure.at in failed])
            axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
            doubling(axes, (*speed, *earlier_speed), axis)
            axes.legend()

        return [panel for panel, there in ((waiting, first), (working, speed)) if there]

    return panels


def _memory(scene: Scene) -> list[Panel]:
    """Of the device and of the host, which are one on a CPU."""
    parts = ("length-memory", "batch-memory")
    places = ("host",) if scene.record.head.where.silicon == "CPU" else ("device", "host")
    found = {part: [scene.figures(f"{part}/{place}") for place in places] for part in parts}
    return [_peaks(scene, part, *reversed(peaks)) for part, peaks in found.items() if any(peaks)]


def _peaks(scene: Scene, part: str, host: list[Figure], device: Sequence[Figure] = ()) -> Panel:
    stated = scene.stated(f"{part}/device")

    def draw(axes: Axes) -> None:
        unit = scale(max(figure.spread.middle for figure in (*device, *host)), "bytes")
        axes.set_title(f"{scene.words(PARTS[part].name)} ({unit.symbol})")
        Line(scene.name(f"{part}/device"), BLUE, "o-", unit.size, named=True).draw(axes, device)
        Line(scene.name(f"{part}/host"), GREEN, "^-", unit.size, named=not device).draw(axes, host)
        Line(scene.words(BASELINE), RED, "s--", unit.size).draw(axes, stated)
        for figure in scene.figures("memory/loaded" if device else "memory/host-loaded"):
            label = scene.name(figure.quantity)
            axes.axhline(figure.spread.middle / unit.size, color=GREY, linestyle=":", label=label)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        doubling(axes, (*device, *host), scene.words(PARTS[part].axis))
        axes.legend()

    return draw


TITLES: dict[Which, Words] = {
    "latency": Words("Latency of one clip", "单条音频延迟"),
    "throughput": Words("Throughput over batch", "不同批大小的吞吐"),
    "closed": Words("Server, clients that wait", "服务并发:闭环到达"),
    "open": Words("Server, requests at a rate", "服务并发:开环到达"),
    "memory": Words("Peak memory", "内存峰值"),
    "vllm": Words("transformers and vLLM side by side", "transformers 与 vLLM 对比"),
}
PLOTS: dict[Which, Callable[[Scene], list[Panel]]] = {
    "latency": _latency,
    "throughput": _throughput,
    "closed": _served("closed"),
    "open": _served("open"),
    "memory": _memory,
    "vllm": both_panels,
}
