"""The benchmark with the engine vllm, and both engines side by side; a stand-in is the vLLM."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from fronting import in_front_of
from vllm_server import StandIn, vllm_server

from env.sources import load_settings
from runtime.demo import Clip
from runtime.measure import load_generator, records, soak, synthetic_audio
from runtime.measure.bench import engines, worker
from runtime.measure.bench.record import Absent, Bench, Benchmark, Found, Plan
from runtime.measure.bench.resources import opened
from runtime.measure.bench.run import TABLE, BenchObserver, run
from runtime.measure.bench.tables import grids
from runtime.measure.load_generator import serving
from runtime.measure.records import RunClock, Where
from runtime.measure.smoke.backends import ModelBackend
from runtime.measure.smoke.record import ran_on
from runtime.measure.smoke.run import Cases, steps
from runtime.measure.smoke.run import run as smoke
from runtime.measure.statistics import Figure
from runtime.model import device
from runtime.transcriber import Transcriber, open_transcriber

PLAN = Plan(
    parts=tuple(TABLE), runs=2, warmups=1, batches=(1, 3), minutes=(0.1,), clients=(2,), rates=(9.0,), requests=3
)
LEVEL = 2  # clients, in place of 8 and 16
OF_BOTH = ("latency", "first-token", "errors")


def figures(found: list[Found]) -> dict[str, Figure]:
    return {one.key: one for one in found if isinstance(one, Figure)}


def absences(found: list[Found]) -> dict[str, Absent]:
    return {one.what: one for one in found if isinstance(one, Absent)}


def changed(transcriber: Transcriber, **changes: Any) -> Transcriber:
    return replace(transcriber, settings=transcriber.settings.model_copy(update=changes))


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[StandIn]:
    with vllm_server(transcriber) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def remote(server: StandIn) -> Iterator[Transcriber]:
    """The engine vllm."""
    with open_transcriber(in_front_of(server)) as transcriber:
        yield transcriber


@pytest.fixture(scope="module")
def record(server: StandIn) -> Benchmark:
    """A whole benchmark whose model is in a vLLM."""
    parts = tuple(part for part in TABLE if part not in ("vllm", "open"))
    settings = load_settings({"ASR_ENGINE": "vllm", "ASR_VLLM_URL": server.url})
    return run(settings, replace(PLAN, parts=parts), BenchObserver())


def test_what_needs_no_model_in_this_process_is_measured(record: Benchmark) -> None:
    found = figures(list(record.figures))
    expected = {"loading/seconds", "loading/first", "memory/host-loaded", "memory/host-unloaded", "memory/weights"}
    expected |= {f"latency/{name}" for name in ("total", "rtf", "first-token", "rest")}
    expected |= {f"throughput/{name}@{size}" for name in ("seconds", "speed", "efficiency") for size in (1, 3)}
    expected |= {"long/seconds@0.1", "closed/throughput@2", "closed/first-token@2"}
    assert expected <= set(found)
    total, first, rest = (found[f"latency/{name}"].samples for name in ("total", "first-token", "rest"))
    assert len(total) == len(first) == len(rest) == 2
    assert min(first) > 0
    assert not {key for key in found if key.startswith(("latency/encoder", "batch-memory", "engines", "host/"))}


def test_what_needs_it_is_absent_with_reason_and_advice(record: Benchmark) -> None:
    absent = absences(list(record.absent))
    for part in ("latency/split", "engines"):
        assert "has the model in a process of its own" in absent[part].reason
        assert absent[part].advice == "set ASR_ENGINE=transformers"
    assert "takes its share of the memory when it starts" in absent["memory"].reason
    assert "not known" in absent["memory/loaded"].reason
    assert "memory/unloaded" in absent


def test_the_record_says_which_engine_and_that_its_silicon_is_not_known(record: Benchmark, server: StandIn) -> None:
    place = record.head.where
    assert (place.engine, place.silicon) == ("vllm", "unknown")
    assert f"vLLM 0.18.0 at {server.url}" in place.description
    assert "torch" not in place.versions  # that of this process calculates nothing
    assert "silicon that is not known here" in ran_on(place)
    assert "Engine: vllm 0.18.0." in ran_on(place)


def test_smoke_load_and_soak(remote: Transcriber, clips: list[Clip], speech_file: bytes) -> None:
    model = ModelBackend(remote, records.of(remote))
    cases = Cases(tuple(clips), (), tuple(clips))
    found = smoke(steps(model, cases), model, RunClock(), on_outcome=lambda _: None)
    assert found.passed, list(found.failed)
    assert found.head.where.engine == "vllm"
    with serving(remote) as running:
        (one,) = load_generator.run(remote, running, synthetic_audio.recordings([1.0, 2.0]), clients=2, rounds=1)
        soaked = soak.soak(f"http://127.0.0.1:{running.port}", [speech_file], seconds=0.2, clients=2)
    assert one.together.throughput > 0
    assert soaked.asked
    assert soaked.faults == []


@pytest.fixture(scope="module")
def speech_file(clips: list[Clip]) -> bytes:
    return clips[0].path.read_bytes()


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the run below told."""
    return []


@pytest.fixture(scope="module", autouse=True)
def others() -> set[BaseProcess]:
    """Processes that other tests have begun, and that end with them."""
    return set(multiprocessing.active_children())


@pytest.fixture(scope="module")
def compared(transcriber: Transcriber, server: StandIn, told: list[str]) -> list[Found]:
    """Both engines side by side."""
    bench = Bench(changed(transcriber, vllm_url=server.url), PLAN, told.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "LEVELS", (LEVEL,))
        return list(engines.measure_engines(bench))


def test_both_are_measured_by_turns(compared: list[Found], told: list[str]) -> None:
    assert absences(compared) == {}
    found = figures(compared)
    for engine in engines.ENGINES:
        for name in OF_BOTH:
            assert found[f"vllm/alone/{engine}-{name}"].warmups == PLAN.warmups
            assert found[f"vllm/load/{engine}-{name}@{LEVEL}"].warmups == LEVEL
        assert len(found[f"vllm/alone/{engine}-latency"].samples) == PLAN.runs
        assert len(found[f"vllm/load/{engine}-latency@{LEVEL}"].samples) == max(PLAN.requests, 2 * LEVEL)
        assert found[f"vllm/load/{engine}-errors@{LEVEL}"].samples == (0,)
    assert told[:2] == ["vllm: starting vllm", "vllm: starting transformers"]
    assert "vllm: alone, round 3 of 3" in told
    assert told[-1] == f"vllm: {LEVEL} clients, round 1 of 1"


def test_ratios_are_of_a_round(compared: list[Found]) -> None:
    found = figures(compared)
    ours, theirs = (found[f"vllm/alone/{engine}-latency"].samples for engine in engines.ENGINES)
    expected = [other / one for one, other in zip(ours, theirs, strict=True)]
    assert found["vllm/alone/latency-ratio"].samples == pytest.approx(expected)
    ours, theirs = (found[f"vllm/load/{engine}-throughput@{LEVEL}"].samples for engine in engines.ENGINES)
    assert found[f"vllm/load/throughput-ratio@{LEVEL}"].samples == pytest.approx((theirs[0] / ours[0],))


def test_transcripts_are_counted_by_length(compared: list[Found]) -> None:
    found = figures(compared)  # of 1, 10 (the longest segment) and 10 s
    assert (found["vllm/texts"].samples, found["vllm/long-texts"].samples) == ((1,), (2,))
    assert found["vllm/texts-differing"].samples == found["vllm/long-texts-differing"].samples == (0,)


def test_the_record_says_what_stood_side_by_side(
    others: set[BaseProcess], compared: list[Found], server: StandIn, record: Benchmark
) -> None:
    sides = [one for one in compared if isinstance(one, Where)]
    assert [(one.engine, one.silicon) for one in sides] == [("transformers", "CPU"), ("vllm", "unknown")]
    shown = replace(record, sides=tuple(sides), figures=tuple(figures(compared).values()), absent=())
    both_of_them, beside = grids(shown)
    assert both_of_them.title == "Side by side: transformers and vLLM"
    assert server.url in beside.rows[1][1]
    assert "ASR_ENGINE=vllm" in beside.rows[1][3]
    assert set(multiprocessing.active_children()) <= others


def test_a_vllm_that_is_started_leaves_memory_to_the_other_engine(transcriber: Transcriber) -> None:
    asked = engines.changes(changed(transcriber, vllm_memory_share=0.9))
    assert asked["transformers"] == {"engine": "transformers", "max_batch": 8}
    one = {"vllm_replicas": 1, "vllm_memory_share": engines.SHARE, "vllm_eager": True}
    assert asked["vllm"] == {"engine": "vllm", "vllm_max_seqs": 64, **one}
    assert engines.changes(changed(transcriber, vllm_memory_share=0.3))["vllm"]["vllm_memory_share"] == 0.3


def test_servers_that_run_for_this_process_are_not_started_anew(remote: Transcriber, server: StandIn) -> None:
    started = changed(remote, vllm_url=None)
    assert engines.changes(started)["vllm"] == {"engine": "vllm", "vllm_max_seqs": 64, "vllm_url": server.url}


def test_without_a_vllm_there_is_nothing_to_compare(transcriber: Transcriber) -> None:
    (absent,) = engines.measure_engines(Bench(transcriber, PLAN))
    assert isinstance(absent, Absent)
    assert absent.what == "vllm"
    assert "ASR_VLLM_PYTHON" in absent.advice
    assert "ASR_VLLM_URL" in absent.advice


def test_where_memory_is_short_nothing_is_started(
    transcriber: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 9 kB\nMemAvailable: 2 kB\n", encoding="ascii")
    monkeypatch.setattr(worker, "MEMORY", memory)
    (absent,) = engines.measure_engines(Bench(changed(transcriber, vllm_python=Path("/python")), PLAN))
    assert isinstance(absent, Absent)
    assert "for the model 2 times more" in absent.reason


def test_a_vllm_that_cannot_be_used_says_why(others: set[BaseProcess], transcriber: Transcriber) -> None:
    with vllm_server(transcriber, version="0.17.1") as old:
        (absent,) = engines.measure_engines(Bench(changed(transcriber, vllm_url=old.url), PLAN))
    assert isinstance(absent, Absent)
    assert absent.what == "vllm@vllm"
    assert "0.17.1" in absent.reason
    assert set(multiprocessing.active_children()) <= others


def test_memory_of_a_vllm_here_is_told(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that the kit has started, whose processes it can look at."""
    from runtime.engines.vllm.device import ExternalServers

    monkeypatch.setattr(ExternalServers, "reports_memory", True)
    monkeypatch.setattr(ExternalServers, "memory", lambda _: device.Memory(5, 5, 7, 9))
    found: list[Found] = []
    stages: list[str] = []
    with opened(load_settings({"ASR_ENGINE": "vllm", "ASR_VLLM_URL": server.url}), found, stages.append):
        pass
    known = figures(found)
    assert (known["memory/loaded"].samples, known["memory/device-total"].samples) == ((5,), (9,))
    assert all(stage.startswith("loading: ") for stage in stages)
