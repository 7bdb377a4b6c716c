"""Voice activity: turns begin and end where somebody speaks, and nowhere else."""

import numpy as np
import pytest
from realtime_client import Samples, pcm, spoken

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.server.realtime.local_agreement import PartialTranscript
from runtime.server.realtime.turn import AudioBuffer, Resampler, Turn, quietest_point
from runtime.server.realtime.turn_detection import Detection, TurnDetector
from runtime.transcriber import Request, Transcriber

USUAL = Detection(threshold=0.5, padding_seconds=0.3, silence_seconds=0.5)
MAX_SEGMENT_SECONDS = 12.0


def listener(detection: Detection | None, *, rate: int = SAMPLE_RATE) -> TurnDetector:
    """One that begins with nothing."""
    return TurnDetector(rate=rate, detection=detection, longest=MAX_SEGMENT_SECONDS)


def changes(hearing: TurnDetector, sound: bytes) -> list[Turn]:
    """The turns, which are plain ones, that begin and end in the sound."""
    return list(
        hearing.feed(sound, new_turn=lambda start: Turn("item", "", start, PartialTranscript(None), open=start))
    )


def turns(hearing: TurnDetector, sound: bytes, *, size: int) -> list[Turn]:
    """Those that ended while the sound came, in pieces of `size` bytes."""
    changed = [turn for start in range(0, len(sound), size) for turn in changes(hearing, sound[start : start + size])]
    begun, ended = changed[::2], changed[1::2]
    assert begun[: len(ended)] == ended
    return ended


@pytest.mark.parametrize(("rate", "size"), [(24_000, 4800), (16_000, 1 << 20)])
def test_each_utterance_is_a_turn(transcriber: Transcriber, speech: list[Clip], rate: int, size: int) -> None:
    sound = spoken(transcriber, speech[:3])
    hearing = listener(USUAL, rate=rate)
    heard = turns(hearing, pcm(sound, rate=rate), size=size)
    assert len(heard) == 3
    at = 1.0  # after the quiet room
    for turn, clip in zip(heard, speech, strict=False):
        assert turn.end is not None
        samples = transcriber.prepare(Request(clip.path)).audio.samples
        loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max()) / SAMPLE_RATE
        length = len(samples) / SAMPLE_RATE
        assert at + loud[0] - 0.5 < turn.start / SAMPLE_RATE <= at + loud[0]
        assert at + loud[-1] + 0.2 < turn.end / SAMPLE_RATE < at + loud[-1] + 1
        assert len(turn.cuts[0]) == turn.end - turn.start
        at += length + 1.0
    assert hearing.turn is None


def test_noise_and_clicks_are_no_speech(transcriber: Transcriber, clips: list[Clip]) -> None:
    noise = next(clip for clip in clips if not clip.language)
    sound = transcriber.prepare(Request(noise.path)).audio.samples.copy()
    sound[SAMPLE_RATE : SAMPLE_RATE + 80] = 0.9
    assert not changes(listener(USUAL), pcm(sound))


def test_without_detection_all_is_one_turn_until_it_is_committed() -> None:
    hearing = listener(None, rate=24_000)
    sound = np.zeros(3 * 24_000, dtype=np.int16).tobytes()
    (begun,) = changes(hearing, sound[:2400])
    assert hearing.commit(shortest=0.1) is None
    assert hearing.turn is begun
    assert not changes(hearing, sound[2400:])
    ended = hearing.commit(shortest=0.1)
    assert ended is begun
    assert (ended.start, ended.end) == (0, 3 * SAMPLE_RATE)
    assert hearing.buffer.end - hearing.buffer.start == 0


def test_a_turn_without_a_pause_is_cut_where_it_is_quietest() -> None:
    loud = np.random.default_rng(1).normal(0, 0.1, 30 * SAMPLE_RATE).astype(np.float32)
    for second in (10, 19):
        loud[second * SAMPLE_RATE : int((second + 0.3) * SAMPLE_RATE)] *= 0.01
    hearing = listener(None)
    sound = pcm(loud)
    for start in range(0, len(sound), 4096):
        changes(hearing, sound[start : start + 4096])
    turn = hearing.commit(shortest=0.1)
    assert turn
    ends = np.cumsum([len(cut) for cut in turn.cuts]) / SAMPLE_RATE
    assert 10 <= ends[0] <= 10.3
    assert 19 <= ends[1] <= 19.3
    assert ends[-1] == 30
    assert max(len(cut) for cut in turn.cuts) <= (MAX_SEGMENT_SECONDS + 0.2) * SAMPLE_RATE


def test_a_cut_is_behind_the_words_that_were_told() -> None:
    turn = Turn("item", "", 0, PartialTranscript(None), open=0)
    buffer = AudioBuffer()
    buffer.append(np.random.default_rng(1).normal(0, 0.1, 12 * SAMPLE_RATE).astype(np.float32))
    for heard in (9, 10):
        turn.partial.update("language English<asr_text>one two", samples=heard * SAMPLE_RATE)
    turn.cut(buffer, longest=MAX_SEGMENT_SECONDS)
    assert 9 * SAMPLE_RATE <= turn.open < 12 * SAMPLE_RATE


def test_the_quietest_place_of_hardly_anything_is_its_end() -> None:
    assert quietest_point(np.ones(100, dtype=np.float32), earliest=0)[0] == 100


def test_resampling_in_pieces_is_resampling_at_once() -> None:
    tone: Samples = (0.5 * np.sin(np.arange(24_000) * 0.05)).astype(np.float32)
    sound = (tone * 2**15).astype("<i2").tobytes()
    pieces, whole = Resampler(24_000), Resampler(24_000)
    parts = [pieces.convert(sound[start : start + 480]) for start in range(0, len(sound), 480)]
    together = np.concatenate([*parts, pieces.flush()])
    assert len(together) == SAMPLE_RATE
    np.testing.assert_array_equal(together, np.concatenate([whole.convert(sound), whole.flush()]))
