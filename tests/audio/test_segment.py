"""Segments must lose nothing, never be too long, and be cut where nobody speaks."""

import itertools

import numpy as np
import pytest
from audio_files import speechlike

from runtime.audio import SAMPLE_RATE, Samples
from runtime.audio.segment import AudioSegment, is_silent, split


def noise(seconds: float, level: float = 0.3, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def with_pauses(samples: Samples, *pauses: tuple[float, float], level: float = 0.001) -> Samples:
    """Samples that are quiet from the one time to the other, in seconds."""
    samples = samples.copy()
    for begin, end in pauses:
        samples[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)] *= level
    return samples


def check(samples: Samples, segments: list[AudioSegment], longest: float) -> None:
    """Nothing lost, nothing doubled, nothing too long."""
    np.testing.assert_array_equal(np.concatenate([segment.samples for segment in segments]), samples)
    assert segments[0].start == 0
    assert segments[-1].end == len(samples) / SAMPLE_RATE
    for before, after in itertools.pairwise(segments):
        assert before.end == after.start
    for segment in segments:
        assert 0 < len(segment.samples) <= longest * SAMPLE_RATE
        assert len(segment.samples) == round((segment.end - segment.start) * SAMPLE_RATE)


@pytest.mark.parametrize("longest", [0.01, 0.37, 1.0, 2.5, 30.0])
def test_joined_segments_are_the_samples_again(longest: float) -> None:
    rng = np.random.default_rng(3)
    for length in [1, 2, 159, 160, 161, *rng.integers(1, 200_000, 20).tolist()]:
        samples = noise(length / SAMPLE_RATE, seed=length)
        check(samples, split(samples, longest=longest), longest)


@pytest.mark.parametrize("part", [1.0, 1.0001, 1.01, 1.2, 1.5999, 1.6, 1.6001, 1.9, 2.0, 2.3, 3.3, 7.77])
@pytest.mark.parametrize("loud", [True, False])
def test_no_segment_is_a_scrap(part: float, loud: bool) -> None:
    longest = 2.0
    samples = noise(part * longest, 0.3 if loud else 0.0)
    segments = split(samples, longest=longest)
    check(samples, segments, longest)
    assert min(len(segment.samples) for segment in segments) >= 0.299 * longest * SAMPLE_RATE


def test_short_audio_is_one_segment() -> None:
    samples = noise(3.0)
    (segment,) = split(samples, longest=3.0)
    assert segment.samples is samples or np.shares_memory(segment.samples, samples)
    assert (segment.start, segment.end) == (0.0, 3.0)
    assert split(samples[:0], longest=3.0) == []


def test_cuts_fall_into_pauses() -> None:
    pauses = [(8.0, 8.3), (16.9, 17.3), (25.0, 25.4), (31.0, 31.5)]
    samples = with_pauses(noise(40.0), *pauses)
    inner = [segment.end for segment in split(samples, longest=10.0)[:-1]]
    assert len(inner) == 4
    for place, (begin, end) in zip(inner, pauses, strict=True):
        assert begin <= place <= end


def test_a_long_pause_wins_over_the_stop_inside_a_word() -> None:
    samples = with_pauses(noise(20.0), (7.0, 7.3), (9.5, 9.56))
    assert 7.0 <= split(samples, longest=10.0)[0].end <= 7.3


def test_of_equal_pauses_the_later_wins() -> None:
    samples = with_pauses(noise(20.0), (6.5, 6.8), (7.5, 7.8), (9.0, 9.3))
    assert 9.0 <= split(samples, longest=10.0)[0].end <= 9.3


def test_a_much_quieter_pause_wins_over_a_later_one() -> None:
    samples = with_pauses(with_pauses(noise(20.0), (6.5, 6.8)), (9.0, 9.3), level=0.3)
    assert 6.5 <= split(samples, longest=10.0)[0].end <= 6.8


def test_a_constant_offset_does_not_hide_the_pauses() -> None:
    samples = with_pauses(noise(20.0, 0.05), (7.0, 7.3)) + np.float32(0.3)
    assert 7.0 <= split(samples, longest=10.0)[0].end <= 7.3


def test_unbroken_sound_is_cut_at_the_latest() -> None:
    samples = np.sin(np.arange(25 * SAMPLE_RATE) * 0.3).astype(np.float32)
    segments = split(samples, longest=10.0)
    check(samples, segments, 10.0)
    assert segments[0].end == pytest.approx(10.0, abs=0.1)
    assert segments[1].end == pytest.approx(17.5, abs=0.1)


def test_a_segment_must_hold_something() -> None:
    with pytest.raises(ValueError, match="holds no sample"):
        split(noise(1.0), longest=0.00001)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(SAMPLE_RATE, np.float32),
        np.zeros(0, np.float32),
        np.zeros(7, np.float32),
        np.full(SAMPLE_RATE, 0.2, np.float32),
        np.round(noise(1.0, 0.5)).clip(-1, 1) / 32768,
        noise(5.0, 10 ** (-80 / 20)),
    ],
    ids=["zeros", "nothing", "less than a block", "an offset alone", "the last bit", "-80 dB"],
)
def test_no_signal_is_silent(samples: Samples) -> None:
    assert is_silent(samples)


@pytest.mark.parametrize(
    "samples",
    [
        noise(1.0, 10 ** (-60 / 20)),
        speechlike(1.0, SAMPLE_RATE)[:, 0] * np.float32(0.005),
        np.concatenate([np.zeros(SAMPLE_RATE * 20, np.float32), noise(0.05, 0.01), np.zeros(SAMPLE_RATE, np.float32)]),
        noise(0.005, 0.01),
    ],
    ids=["a quiet room", "a soft voice", "one short sound", "less than a block"],
)
def test_any_signal_is_not_silent(samples: Samples) -> None:
    assert not is_silent(samples)
