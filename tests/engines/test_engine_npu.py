"""What the engine costs on the simulated NPU: a launch serves a whole batch, and a token costs one wait."""

from dataclasses import dataclass, field, replace

import pytest
from simulated_npu import on_npu, stand_in

from env.sources import load_settings
from runtime.demo import bundled_clips
from runtime.engines import Observer, Utterance
from runtime.transcriber import Request, Transcriber, open_transcriber

NPU = {"ASR_DEVICE": "npu:0", "ASR_MAX_BATCH": "8"}


@dataclass
class Costs(Observer):
    """Launches and waits for the device until the end of each step; the first is the prefill."""

    counted: list[tuple[int, int]] = field(default_factory=list)

    def _count(self, seconds: float) -> None:  # noqa: ARG002 - Observer's
        counters = stand_in().simulation.counters()
        self.counted.append((counters.launches, counters.synchronisations))

    prefill_done = decode_step = _count

    def between_steps(self) -> list[tuple[int, int]]:
        """Launches and waits of each step after the prefill."""
        pairs = zip(self.counted, self.counted[1:], strict=False)
        return [(after[0] - before[0], after[1] - before[1]) for before, after in pairs]


def spoken(transcriber: Transcriber) -> list[Utterance]:
    """Speech of different lengths, of which six tokens each are decoded."""
    clips = [clip for clip in bundled_clips() if clip.language and not clip.context]
    found = [transcriber.prepare(Request(clip.path)).spoken[0] for clip in clips]
    return [replace(utterance, max_new_tokens=6) for utterance in found]


@on_npu
@pytest.mark.parametrize("together", [1, 4])
def test_a_token_costs_one_wait_however_many_are_decoded(together: int) -> None:
    costs = Costs()
    with open_transcriber(load_settings(NPU), observers=[costs]) as transcriber:
        utterances = spoken(transcriber)[:together]
        assert len({utterance.seconds for utterance in utterances}) == together
        for decoding in transcriber.engine.submit(utterances):
            assert decoding.result().tokens
    steps = costs.between_steps()
    assert len(steps) == 5
    assert {waits for _, waits in steps} == {1}
    assert len({launches for launches, _ in steps}) == 1


@on_npu
def test_a_batch_takes_hardly_more_launches_than_one_utterance() -> None:
    simulation = stand_in().simulation
    spent = []
    with open_transcriber(load_settings(NPU)) as transcriber:
        utterances = spoken(transcriber)
        for batch in (utterances[:1], utterances[:4]):
            with simulation.measured() as cost:
                for decoding in transcriber.engine.submit(batch):
                    decoding.result()
            spent.append(cost())
    alone, together = spent
    assert together.launches < 1.5 * alone.launches
    assert together.synchronisations == alone.synchronisations
