"""`invoke bench` with a real vLLM: one that runs, and one that it starts to stand beside the transformers engine."""

from pathlib import Path

import pytest
from invoking import invoke

from runtime.measure.bench.engines import ENGINES, LEVELS, SHARE
from runtime.measure.bench.record import Benchmark, read

from .conftest import LIMITS
from .program import Program

SMALL = ("--runs", "2", "--warmups", "1", "--requests", "6", "--batches", "1,4", "--minutes", "0.2", "--clients", "2")


def bench(parts: str, out: Path, **variables: str) -> Benchmark:
    """The record of a small run."""
    limits = {f"ASR_{name.upper()}": str(value) for name, value in LIMITS.items()}
    result = invoke("bench", "--parts", parts, *SMALL, "--output", out, **limits, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    return read(str(out / "bench.json"))


def assert_both_are_there(record: Benchmark) -> None:
    """All figures of both, none failed; segments are so short that both engines decode the same tokens."""
    found = {figure.key: figure for figure in record.figures}
    for engine in ENGINES:
        assert len(found[f"vllm/alone/{engine}-latency"].samples) == 2
        for clients in LEVELS:
            assert found[f"vllm/load/{engine}-errors@{clients}"].samples == (0,)
            assert found[f"vllm/load/{engine}-first-token@{clients}"].spread.count
    for clients in LEVELS:
        assert found[f"vllm/load/throughput-ratio@{clients}"].spread.middle > 0
    assert found["vllm/texts"].samples == (6,)
    assert found["vllm/texts-differing"].samples == (0,)
    assert [side.engine for side in record.sides] == list(ENGINES)
    assert "0.18" in record.sides[1].description


@pytest.fixture(scope="module")
def url(program: Program) -> str:
    """A vLLM that runs."""
    (server,) = program.get("/v1/info").json()["engine"]["servers"]
    return str(server["url"])


def test_the_engine_is_measured(url: str, tmp_path: Path) -> None:
    record = bench("loading,latency,throughput,long,closed,vllm", tmp_path, ASR_ENGINE="vllm", ASR_VLLM_URL=url)
    assert record.head.where.engine == "vllm"
    found = {figure.key: figure for figure in record.figures}
    for key in ("loading/seconds", "latency/first-token", "latency/rest", "throughput/speed@4", "long/rtf@0.2"):
        assert found[key].spread.middle > 0
    assert found["closed/errors@2"].samples == (0,)
    assert "has the model in a process of its own" in {one.what: one.reason for one in record.absent}["latency/split"]
    assert_both_are_there(record)


def test_one_is_started_to_stand_beside_the_other_engine(python: Path, tmp_path: Path) -> None:
    record = bench("vllm", tmp_path, ASR_VLLM_PYTHON=str(python))
    assert record.head.where.engine == "transformers"
    assert_both_are_there(record)
    assert record.sides[1].silicon == "CPU"
    assert record.sides[1].settings["ASR_VLLM_MEMORY_SHARE"] == str(SHARE)
