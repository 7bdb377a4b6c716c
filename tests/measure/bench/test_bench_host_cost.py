"""Launches and waits of the kit's engine and of qwen-asr, as the simulated NPU counts them."""

from pathlib import Path

import pytest

from runtime.measure.bench import comparison
from runtime.measure.bench.record import Absent, Bench, Plan
from runtime.measure.statistics import Figure
from runtime.transcriber import Transcriber


@pytest.fixture(scope="module")
def figures(transcriber: Transcriber) -> dict[str, Figure]:
    """All that is counted, by key."""
    found = list(comparison.measure_host_cost(Bench(transcriber, Plan(("host",)))))
    return {one.key: one for one in found if isinstance(one, Figure)}


def test_a_token_costs_the_kit_one_wait_and_qwen_asr_five(figures: dict[str, Figure]) -> None:
    for batch in comparison.BATCHES:
        assert set(figures[f"host/waits@{batch}"].samples) == {1}
        assert set(figures[f"host/qwen-asr-waits@{batch}"].samples) == {5}


def test_every_step_launches_the_same(figures: dict[str, Figure]) -> None:
    for name in ("host/launches", "host/qwen-asr-launches"):
        for batch in comparison.BATCHES:
            samples = figures[f"{name}@{batch}"].samples
            assert len(samples) == comparison.TOKENS - 1
            assert len(set(samples)) == 1


def test_a_step_of_a_batch_costs_the_kit_what_one_utterance_does(figures: dict[str, Figure]) -> None:
    (alone,) = set(figures["host/launches@1"].samples)
    (together,) = set(figures["host/launches@8"].samples)
    assert alone == together > 3 * 20  # layers, each of which has as many operators at least
    assert figures["host/launches@8"].spread.middle < figures["host/qwen-asr-launches@8"].spread.middle


def test_beginning_together_is_cheaper_for_each(figures: dict[str, Figure]) -> None:
    for name in ("launches", "waits"):
        alone, together = (figures[f"host/first-{name}@{batch}"].spread.middle for batch in comparison.BATCHES)
        assert together < alone / 4
        assert alone < figures[f"host/qwen-asr-first-{name}@1"].spread.middle


def test_without_the_tests_there_is_no_simulated_npu(
    transcriber: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "SIMULATED_NPU", tmp_path / "none")
    (absent,) = comparison.measure_host_cost(Bench(transcriber, Plan(("host",))))
    assert isinstance(absent, Absent)
    assert absent.what == "host"
    assert "clone" in absent.advice
