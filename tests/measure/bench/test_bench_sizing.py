"""What a benchmark's record says of the size of a host, and that its arithmetic is the one that is told."""

import re
from dataclasses import replace
from itertools import chain

import pytest

from runtime.measure.bench.record import Benchmark, read
from runtime.measure.bench.sizing import GOALS, grids, markdown
from runtime.measure.report.record import Report
from runtime.measure.report.render import markdown as page
from runtime.measure.report.sections import document
from runtime.measure.statistics import Figure, figure

GIB = 2**30


def level(part: str, at: float, seconds: float, *, speed: float, errors: int = 0) -> list[Figure]:
    """A server's figures at a level, whose requests all take so long."""
    return [
        figure(f"{part}/latency", [seconds] * 4, at=at),
        figure(f"{part}/throughput", [speed], at=at),
        figure(f"{part}/errors", [errors], at=at),
    ]


@pytest.fixture
def served(measured: Benchmark) -> Benchmark:
    """A benchmark of an NPU, whose server is fast for 8 clients, slow for 16, and fails for 32."""
    closed = [level("closed", at, seconds, speed=speed) for at, seconds, speed in ((1, 0.5, 20), (8, 0.9, 84))]
    closed += [level("closed", 16, 4.0, speed=100), level("closed", 32, 4.5, speed=110, errors=2)]
    arriving = [level("open", at, 0.8, speed=20) for at in (2.0, 2.5)]
    held = {
        "memory/loaded": 4 * GIB,
        "memory/host-loaded": 2 * GIB,
        "memory/device-total": 32 * GIB,
        "memory/weights": 3 * GIB,
    }
    memory = [figure(name, [size]) for name, size in held.items()]
    memory += [figure("length-memory/device", [size], at=at) for at, size in ((5, 4.1 * GIB), (120, 5 * GIB))]
    where = replace(measured.head.where, silicon="NPU", settings={"ASR_MAX_WAITING": "100", "ASR_MAX_BATCH": "16"})
    figures = (*chain(*closed, *arriving), *memory)
    return replace(measured, head=replace(measured.head, where=where), figures=figures, absent=())


def rows(record: Benchmark) -> list[dict[str, tuple[str, ...]]]:
    """Each table by its rows' first cells."""
    return [{row[0]: row[1:] for row in grid.rows} for grid, _ in grids(record)]


def test_clients_are_those_that_were_measured_to_be_answered_in_time(served: Benchmark) -> None:
    (clients, _) = rows(served)
    assert list(clients) == [f"{goal:g} s" for goal in GOALS]
    # 84 / 10.5 = 8; min(84 × 0.7, 2.5 × 10.5) × 3600 / 360 = 262
    assert clients["1 s"] == ("8", "84 x", "8", "2.5+", "262")
    # 32 clients are as fast as is asked for, but some of them were refused.
    assert clients["5 s"] == clients["10 s"] == ("16", "100 x", "9.5", "2.5+", "262")
    alone = replace(served, figures=tuple(one for one in served.figures if not one.quantity.startswith("open")))
    assert rows(alone)[0]["1 s"] == ("8", "84 x", "8", "–", "588")  # 84 × 0.7 × 3600 / 360
    late = (*alone.figures, *level("open", 2.0, 1.5, speed=20))  # clients that wait do not come all at once
    assert rows(replace(served, figures=late))[0]["1 s"] == ("8", "84 x", "8", "–", "–")
    fast = replace(served, figures=tuple(one for one in served.figures if one.at != 32))
    assert rows(fast)[0]["5 s"][0] == "16+"
    slow = replace(served, figures=tuple(chain(*(level("closed", at, 60, speed=1) for at in (1, 8)))))
    assert rows(slow) == [{f"{goal:g} s": ("–",) * 5 for goal in GOALS}]


def test_memory_is_of_the_model_of_what_is_decoded_together_and_of_what_waits(served: Benchmark) -> None:
    (_, memory) = rows(served)
    assert memory["device: model, loaded"][0] == "4 GiB"
    # (5 - 4) GiB / 120 s × min(16 × 30 s, 480 s) = 4 GiB
    size, how = memory["device: KV cache and activations"]
    assert size == "4 GiB"
    assert how.startswith("480 s together × 8.533 MiB/s: peak of 120 s")
    assert memory["device, together"] == ("8 GiB", "of 32 GiB")
    assert memory["host: requests that wait"] == ("100 MiB", "ASR_MAX_WAITING 100 × 1 MiB, at most")
    assert memory["host, together"][0] == "2.098 GiB"
    assert memory["disk: weights"][0] == "3 GiB"
    assert memory["disk: uploads"][0] == "1.500 GiB"


def test_on_a_cpu_the_host_has_it_all(served: Benchmark) -> None:
    where = replace(served.head.where, silicon="CPU")
    figures = (*served.figures, figure("length-memory/host", [3 * GIB], at=120))
    cpu = replace(served, head=replace(served.head, where=where), figures=figures)
    (_, memory) = rows(cpu)
    assert not [what for what in memory if what.startswith("device")]
    assert memory["host: KV cache and activations"][0] == "4 GiB"
    assert memory["host, together"][0] == "6.098 GiB"


def test_there_is_no_table_without_figures(measured: Benchmark) -> None:
    seed = read("seed")
    assert list(grids(seed)) == []
    assert markdown(seed) == ""
    assert [grid.title for grid, _ in grids(measured)] == ["Sizing: what it takes"]  # no server was asked


def test_the_report_has_it_in_both_languages(report: Report, served: Benchmark) -> None:
    english, chinese = (page(document(replace(report, bench=served), language)) for language in ("en", "zh"))
    assert re.search(r"\| 1 s \| 8 \| 84 x \| 8 \| 2\.5\+ \| 262 \|", english)
    assert "Servers = what is needed / what one answers" in english
    assert "等待应答的客户端数" in chinese
    assert "no server under load was measured" in page(document(report, "en"))
