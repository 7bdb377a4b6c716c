"""A benchmark as pictures and tables: real images, readable texts in both languages, nothing where nothing is known."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from benchmarks import times_as
from PIL import Image

from env.errors import KitError
from runtime.measure.bench.plots import ON, PLOTS, Which, figure_svg, write
from runtime.measure.bench.record import Absent, Benchmark, read
from runtime.measure.bench.tables import cautions, grids, markdown
from runtime.measure.statistics import figure

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def full(measured: Benchmark) -> Benchmark:
    """The small benchmark with a server under load, as if it had been measured."""
    served = [
        found
        for part, places in (("closed", (1, 8, 64)), ("open", (2.0, 5.5)))
        for place in places
        for found in (
            figure(f"{part}/first-token", [0.01 * place, 0.012 * place, 0.03 * place, 0.02 * place], at=place),
            figure(f"{part}/throughput", [10.0 * place / (8 + place)], at=place),
            figure(f"{part}/errors", [3.0 if place == 64 else 0.0], at=place),
        )
    ]
    both = [
        found
        for engine, factor in (("transformers", 1.0), ("vllm", 0.5))
        for found in (
            figure(f"vllm/alone/{engine}-latency", [0.7 * factor, 0.8 * factor, 0.75 * factor]),
            *(figure(f"vllm/load/{engine}-throughput", [20.0 / factor], at=count) for count in (8, 16)),
            *(figure(f"vllm/load/{engine}-first-token", [0.4 * factor, 0.9 * factor], at=count) for count in (8, 16)),
        )
    ]
    return replace(measured, figures=(*measured.figures, *served, *both))


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_there_is_a_picture_of_all_that_was_measured(full: Benchmark, tmp_path: Path) -> None:
    written = write(full, tmp_path, baseline=read("seed"))
    assert {path.name for path in written} == {f"{which}.{form}" for which in PLOTS for form in ("png", "svg")}
    for path in written:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"
        else:
            with Image.open(path) as image:
                assert image.format == "PNG"
                pixels = np.asarray(image.convert("L"))
            assert min(pixels.shape) >= 600
            assert 0.5 < np.mean(pixels == 255) < 0.99  # there is something on it, and room between


def test_what_an_earlier_run_drew_is_removed(full: Benchmark, measured: Benchmark, tmp_path: Path) -> None:
    write(full, tmp_path)
    write(measured, tmp_path)
    names = {path.stem for path in tmp_path.iterdir()}
    assert "latency" in names
    assert not names & {"closed", "open"}


def test_a_directory_that_cannot_be_written_to(measured: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "latency.png").mkdir()
    with pytest.raises(KitError, match=r"latency\.png: cannot be written"):
        write(measured, tmp_path)


@pytest.mark.parametrize("which", PLOTS)
def test_a_picture_tells_on_what_it_was_measured(which: Which, full: Benchmark) -> None:
    for silicon, words in ON.items():
        where = replace(full.head.where, silicon=silicon)
        shown = texts(figure_svg(replace(full, head=replace(full.head, where=where)), which, "en"))
        assert any(f"{words.en} · demo" in text for text in shown)


def test_texts_are_texts_in_the_language_asked_for(full: Benchmark) -> None:
    shown = texts(figure_svg(full, "throughput", "zh", baseline=times_as(full, 1.2, "throughput/speed")))
    assert {"每秒处理的音频秒数", "基线", "本次", "批内语音段数"} <= set(shown)
    assert not set(shown) & {"baseline", "here"}
    assert {"1", "2"} <= set(shown)


def test_failed_requests_are_marked(full: Benchmark) -> None:
    assert "requests failed" in texts(figure_svg(full, "closed", "en"))
    assert "requests failed" not in texts(figure_svg(full, "open", "en"))


def test_a_baseline_far_off_leaves_the_samples_apart(full: Benchmark) -> None:
    far = times_as(full, 100, "latency/total")
    near = times_as(full, 1.1, "latency/total")
    pictures = [figure_svg(full, "latency", "en", baseline=baseline) for baseline in (far, near)]
    beyond = [[text.endswith("beyond this axis") for text in texts(picture) if "p50" in text] for picture in pictures]
    assert beyond == [[False, True], [False, False]]
    (total,) = (found for found in full.figures if found.quantity == "latency/total")
    ticks = [float(text) for text in texts(pictures[0]) if text.replace(".", "").isdigit()]
    assert max(ticks) < 10_000 * total.spread.middle  # milliseconds: ten times the samples, not a hundred times


def test_nothing_is_drawn_of_nothing(measured: Benchmark) -> None:
    assert figure_svg(measured, "closed", "en") == ""
    assert all(figure_svg(replace(measured, figures=()), which, "zh") == "" for which in PLOTS)


def test_an_svg_is_the_same_each_time(full: Benchmark) -> None:
    assert figure_svg(full, "memory", "en") == figure_svg(full, "memory", "en")


def test_a_page_has_all_figures_and_what_is_absent(full: Benchmark) -> None:
    lacking = replace(full, absent=(Absent("host", "the simulated NPU | is not here", "measure in a clone"),))
    page = markdown(lacking)
    for words in ("# Benchmark", "a CPU, no NPU", "## Latency of one clip", "| 8 | time to first token |"):
        assert words in page
    assert "| host | the simulated NPU \\| is not here → measure in a clone |" in page
    for line in page.splitlines():
        if line.startswith("| latency"):
            assert line.count("|") == 12
    assert sum(len(grid.rows) for grid in grids(full)) == len(full.figures)


def test_a_page_in_chinese_has_no_english_titles(full: Benchmark) -> None:
    page = markdown(full, "zh", baseline=read("seed"))
    for words in ("# 性能测试", "## 单条音频延迟", "基线来源", "测量条件不同"):
        assert words in page
    for words in ("Quantity", "Baseline", "warm-ups", "Benchmark"):
        assert words not in page


def test_a_page_says_what_to_know_before_one_reads_ratios(full: Benchmark) -> None:
    unfinished = replace(full, head=replace(full.head, ended="interrupted in long"), plan={"clip": "other.wav"})
    assert "Not complete: interrupted in long." in markdown(unfinished)
    told = list(cautions(unfinished, full))
    assert f"Another clip was heard: other.wav there, {full.clip} here." in told
    assert "The baseline is not complete: interrupted in long." in told
    fewer = replace(full, figures=tuple(found for found in full.figures if found.key != "throughput/speed@2"))
    assert list(cautions(full, fewer)) == ["Not measured here, but in the baseline: throughput/speed@2."]
    assert list(cautions(full, full)) == []
