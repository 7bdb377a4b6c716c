"""A benchmark as pictures: PNG and SVG files in English, and SVG texts in either language for a page of HTML.

Texts stay texts in an SVG, so that whoever shows it has the fonts, of which Matplotlib has none for Chinese.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from env.errors import KitError
from runtime.measure.bench.drawing import GREY, Scene
from runtime.measure.bench.panels import PLOTS, TITLES, Which
from runtime.measure.bench.present import headline
from runtime.measure.bench.record import Benchmark
from runtime.measure.quantities import Language, Words
from runtime.model.device import Silicon

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
ON: dict[Silicon, Words] = {
    "NPU": Words("on an NPU", "NPU"),
    "simulated NPU": Words("on a SIMULATED NPU", "模拟 NPU"),
    "CPU": Words("on a CPU", "CPU"),
    "unknown": Words("on unknown silicon", "硬件未知"),
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
