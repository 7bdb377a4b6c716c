"""The comparison of many clients with one clip at a time."""

import pytest

from runtime.measure import load
from runtime.transcriber import Transcriber


def test_clips_are_of_1_to_20_seconds_and_always_the_same(transcriber: Transcriber) -> None:
    made = load.clips(transcriber, 6)
    assert sorted(sound.seconds for sound in made) == pytest.approx([1, 4.8, 8.6, 12.4, 16.2, 20], abs=1e-3)
    again = load.clips(transcriber, 6)
    assert all((one.samples == other.samples).all() for one, other in zip(made, again, strict=True))


def test_every_round_transcribes_all_clips_both_ways(transcriber: Transcriber) -> None:
    sounds = load.clips(transcriber, 4)
    rounds = list(load.run(transcriber, sounds, clients=3, rounds=2))
    assert [(done.alone.clients, done.together.clients) for done in rounds] == [(1, 3), (1, 3)]
    for done in rounds:
        for one in (done.alone, done.together):
            assert len(one.latencies) == 4
            assert one.audio_seconds == pytest.approx(42, abs=1e-3)
            assert max(one.latencies) <= one.elapsed
        assert done.alone.elapsed >= sum(done.alone.latencies)
        assert done.ratio == pytest.approx(done.alone.elapsed / done.together.elapsed)


def test_percentiles_are_of_the_latencies() -> None:
    one = load.Pass(2, 40.0, 4.0, tuple(k / 100 for k in range(101)))
    assert one.throughput == 10
    assert one.percentile(50) == pytest.approx(0.5)
    assert one.percentile(95) == pytest.approx(0.95)
