"""Launches and waits of the kit's engine and of qwen-asr, as the simulated NPU counts them."""

import host_cost
import pytest

from env.errors import KitError
from runtime.measure.bench.baselines import KIT
from runtime.measure.bench.record import Bench, Plan
from runtime.measure.bench.worker import order, started
from runtime.measure.statistics import Figure
from runtime.transcriber import Transcriber


@pytest.fixture(scope="module")
def figures(transcriber: Transcriber) -> dict[str, Figure]:
    """All that is counted, by key."""
    found = list(host_cost.measure(Bench(transcriber, Plan(("host",)))))
    return {one.key: one for one in found if isinstance(one, Figure)}


def test_a_token_costs_the_kit_one_wait_and_qwen_asr_five(figures: dict[str, Figure]) -> None:
    for batch in host_cost.BATCHES:
        assert set(figures[f"host/waits@{batch}"].samples) == {1}
        assert set(figures[f"host/qwen-asr-waits@{batch}"].samples) == {5}


def test_every_step_launches_the_same(figures: dict[str, Figure]) -> None:
    for name in ("host/launches", "host/qwen-asr-launches"):
        for batch in host_cost.BATCHES:
            samples = figures[f"{name}@{batch}"].samples
            assert len(samples) == host_cost.TOKENS - 1
            assert len(set(samples)) == 1


def test_a_step_of_a_batch_costs_the_kit_what_one_utterance_does(figures: dict[str, Figure]) -> None:
    (alone,) = set(figures["host/launches@1"].samples)
    (together,) = set(figures["host/launches@8"].samples)
    assert alone == together > 3 * 20  # layers, each of which has as many operators at least
    assert figures["host/launches@8"].spread.middle < figures["host/qwen-asr-launches@8"].spread.middle


def test_beginning_together_is_cheaper_for_each(figures: dict[str, Figure]) -> None:
    for name in ("launches", "waits"):
        alone, together = (figures[f"host/first-{name}@{batch}"].spread.middle for batch in host_cost.BATCHES)
        assert together < alone / 4
        assert alone < figures[f"host/qwen-asr-first-{name}@1"].spread.middle


def test_costs_of_texts_that_end_early_are_not_told(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_cost, "TOKENS", 12)
    monkeypatch.setattr(host_cost, "SHORTEST", 0.6)
    wanted = order(KIT, transcriber, device=host_cost.DEVICE)
    with (
        started(wanted, host_cost.simulated_npu(), program=host_cost.PROGRAM) as worker,
        pytest.raises(KitError, match="utterances of fewer than 12 tokens"),
    ):
        list(host_cost.count(worker, 1, "host/"))
