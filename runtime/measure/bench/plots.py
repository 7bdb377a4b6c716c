"""A benchmark as pictures: PNG and SVG files in English, and SVG texts in either language for a page of HTML.

Texts stay texts in an SVG, so that whoever shows it has the fonts, of which Matplotlib has none for Chinese.
"""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from env.errors import KitError
from env.translation import Bilingual, Language, translated
from runtime.measure.bench.drawing import BLACK, BLUE, GREEN, GREY, RED, LineStyle, Scene, around, doubling, fit, short
from runtime.measure.bench.record import Benchmark
from runtime.measure.bench.tables import headline
from runtime.measure.metrics import PARTS, amount, scale
from runtime.measure.statistics import Figure
from runtime.model.device import Silicon

ENGINES = {"transformers": ("transformers", BLUE), "vllm": ("vLLM", GREEN)}  # as they are shown
ALONE = translated("one clip: each request")
SPEED = translated("seconds of audio per second")
FIRST = translated("time to first token, median and p95")

Bars = tuple[list[Figure], ...]  # by engine, each by the number of clients

Which = Literal["latency", "throughput", "closed", "open", "memory", "vllm"]
Panel = Callable[[Axes], None]

STAGES = ("audio", "features", "encoder", "prefill", "tokens", "text")

RUNS = translated("each run")
SPLIT = translated("where the time goes (medians)")
HERE = translated("here")
BASELINE = translated("baseline")
OUTSIDE = translated("beyond this axis")
IDEAL = translated("ideal: batch 1's, times the batch")
MEAN = translated("mean")
FAILED = translated("requests failed")

PANEL = (5.6, 4.0)  # inches
LEAST = 1.4  # panels, that a picture is wide
DOTS = 150  # per inch
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "svg.fonttype": "none",
}
ON: dict[Silicon, Bilingual] = {
    "NPU": translated("on an NPU"),
    "simulated NPU": translated("on a SIMULATED NPU"),
    "CPU": translated("on a CPU"),
    "unknown": translated("on unknown silicon"),
}


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


KEYS: dict[str, tuple[Bilingual, str]] = {"throughput": (SPEED, "x"), "first-token": (FIRST, "s")}


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
        LineStyle(scene.words(HERE), BLUE, "o-", named=True).draw(axes, here)
        LineStyle(scene.words(BASELINE), RED, "s--", named=True).draw(axes, stated)
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
            LineStyle(scene.words(MEAN), BLUE, "o-", unit.size, "mean").draw(axes, first)
            LineStyle("p95", BLUE, "^--", unit.size, "p95").draw(axes, first)
            LineStyle(f"{scene.words(BASELINE)}, {scene.words(MEAN)}", RED, "s-", unit.size, "mean").draw(axes, earlier)
            shown = [value for one in (*first, *earlier) for value in (one.spread.mean, one.spread.p95)]
            fit(axes, [value / unit.size for value in shown if value is not None])
            doubling(axes, (*first, *earlier), axis)
            axes.legend()

        def working(axes: Axes) -> None:
            axes.set_title(scene.words(SPEED))
            LineStyle(scene.words(HERE), BLUE, "o-", named=True).draw(axes, speed)
            LineStyle(scene.words(BASELINE), RED, "s--").draw(axes, earlier_speed)
            LineStyle(scene.words(FAILED), BLACK, "X").draw(axes, [figure for figure in speed if figure.at in failed])
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
        LineStyle(scene.name(f"{part}/device"), BLUE, "o-", unit.size, named=True).draw(axes, device)
        LineStyle(scene.name(f"{part}/host"), GREEN, "^-", unit.size, named=not device).draw(axes, host)
        LineStyle(scene.words(BASELINE), RED, "s--", unit.size).draw(axes, stated)
        for figure in scene.figures("memory/loaded" if device else "memory/host-loaded"):
            label = scene.name(figure.quantity)
            axes.axhline(figure.spread.middle / unit.size, color=GREY, linestyle=":", label=label)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        doubling(axes, (*device, *host), scene.words(PARTS[part].axis))
        axes.legend()

    return draw


TITLES: dict[Which, Bilingual] = {
    "latency": translated("Latency of one clip"),
    "throughput": translated("Throughput over batch"),
    "closed": translated("Server, clients that wait"),
    "open": translated("Server, requests at a rate"),
    "memory": translated("Peak memory"),
    "vllm": translated("transformers and vLLM side by side"),
}
PLOTS: dict[Which, Callable[[Scene], list[Panel]]] = {
    "latency": _latency,
    "throughput": _throughput,
    "closed": _served("closed"),
    "open": _served("open"),
    "memory": _memory,
    "vllm": panels,
}


def write(record: Benchmark, directory: Path, *, baseline: Benchmark | None = None) -> list[Path]:
    """Draw whatever there are figures for, as PNG and SVG, and remove what an earlier run drew of the others. Raises
    KitError where a file cannot be written."""
    scene, written = Scene(record, baseline, "en"), []
    for which in PLOTS:
        for form in ("png", "svg"):
            path, content = directory / f"{which}.{form}", _drawn(scene, which, form)
            try:
                path.write_bytes(content) if content else path.unlink(missing_ok=True)
            except OSError as error:
                raise KitError(str(path), f"cannot be written: {error.strerror}") from None
            written += [path] if content else []
    return written


def figure_svg(record: Benchmark, which: Which, language: Language, *, baseline: Benchmark | None = None) -> str:
    """A picture as an `<svg>` element for a page of HTML; empty where there are no figures for it."""
    text = _drawn(Scene(record, baseline, language), which, "svg").decode()
    return text[text.find("<svg") :]


def _drawn(scene: Scene, which: Which, form: str) -> bytes:
    """The file's content; empty where there is nothing to draw."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": which}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # whoever shows the SVG has it
        panels = PLOTS[which](scene)
        if not panels:
            return b""
        width, height = PANEL
        canvas = Canvas(figsize=(width * max(len(panels), LEAST), height), dpi=DOTS, layout="constrained")
        where = scene.record.head.where
        title = " · ".join((scene.words(TITLES[which]), scene.words(ON[where.silicon]), where.model))
        canvas.suptitle(title, x=0.01, ha="left", weight="bold")
        canvas.supxlabel(headline(where, scene.language), x=0.01, ha="left", fontsize=8, color=GREY)
        for panel, axes in zip(panels, canvas.subplots(1, len(panels), squeeze=False)[0], strict=True):
            panel(axes)
        file = io.BytesIO()
        canvas.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
    return file.getvalue()
