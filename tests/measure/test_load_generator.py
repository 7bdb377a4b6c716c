"""Many clients over HTTP against one clip at a time, what HTTP adds, and what waiting requests hold."""

import io
import wave
from collections.abc import Iterator

import numpy as np
import pytest
import queue_memory
from invoke import Exit, MockContext

from env.errors import KitError
from env.settings import Settings
from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.measure import load_generator
from runtime.measure.load_generator import Client, ReadyServer, serving
from runtime.measure.synthetic_audio import PAUSE, joined, lengths, recordings
from runtime.tasks import measure
from runtime.transcriber import Request, Transcriber


@pytest.fixture(scope="module")
def serves(transcriber: Transcriber) -> Iterator[ReadyServer]:
    with serving(transcriber) as server:
        yield server


def test_clips_are_files_of_1_to_20_seconds_and_always_the_same() -> None:
    seconds = lengths(6)
    assert sorted(seconds) == pytest.approx([1, 4.8, 8.6, 12.4, 16.2, 20])
    assert seconds == lengths(6) != sorted(seconds)
    made = recordings(seconds)
    assert made == recordings(seconds)
    assert [sound.seconds for sound in made] == pytest.approx(seconds, abs=1e-3)
    with wave.open(io.BytesIO(made[0].file)) as file:
        assert file.getnframes() / file.getframerate() == made[0].seconds
        assert any(file.readframes(file.getnframes()))


def test_speech_is_the_clips_with_pauses_again_and_again(transcriber: Transcriber, speech: list[Clip]) -> None:
    spoken = transcriber.prepare(Request(speech[0].path)).audio.samples
    sound = joined(60)
    assert sound.dtype == np.float32
    assert len(sound) == 60 * SAMPLE_RATE
    assert sound[: len(spoken)] == pytest.approx(spoken)
    assert not sound[len(spoken) : len(spoken) + int(PAUSE * SAMPLE_RATE)].any()
    assert joined(5) == pytest.approx(sound[: 5 * SAMPLE_RATE])
    later = joined(1, first=1)
    start = len(spoken) + int(PAUSE * SAMPLE_RATE)
    assert later == pytest.approx(sound[start : start + SAMPLE_RATE])


def test_every_round_transcribes_all_clips_both_ways(transcriber: Transcriber, serves: ReadyServer) -> None:
    sounds = recordings([1, 3, 11])
    rounds = list(load_generator.run(transcriber, serves, sounds, clients=2, rounds=2))
    assert [(done.alone.clients, done.together.clients) for done in rounds] == [(1, 2), (1, 2)]
    for done in rounds:
        for one in (done.alone, done.together):
            assert len(one.latencies) == 3
            assert one.audio_seconds == pytest.approx(15, abs=1e-3)
            assert max(one.latencies) <= one.elapsed
        assert done.alone.elapsed >= sum(done.alone.latencies)
        assert done.ratio == pytest.approx(done.alone.elapsed / done.together.elapsed)


def test_percentiles_are_of_the_latencies() -> None:
    one = load_generator.Pass(2, 40.0, 4.0, tuple(k / 100 for k in range(101)))
    assert one.throughput == 10
    assert one.percentile(50) == pytest.approx(0.5)
    assert one.percentile(95) == pytest.approx(0.95)


def test_what_http_adds_is_the_difference_of_the_medians(transcriber: Transcriber, serves: ReadyServer) -> None:
    (sound,) = recordings([1])
    found = load_generator.overhead(transcriber, serves, sound, times=3)
    assert found.direct > 0 < found.http
    assert found.added == found.http - found.direct


def test_the_client_hears_the_text_and_the_reason_why_there_is_none(serves: ReadyServer, speech: list[Clip]) -> None:
    client = Client(serves.port)
    try:
        assert client.transcribe(speech[0].path.read_bytes()) == speech[0].text
        with pytest.raises(KitError, match=r"answered 400: .*clip\.wav"):
            client.transcribe(b"no audio")
        assert client.transcribe(speech[0].path.read_bytes()) == speech[0].text
    finally:
        client.close()


def test_requests_wait_together_in_a_process_of_their_own(settings: Settings, speech: list[Clip]) -> None:
    few = settings.model_copy(update={"max_waiting": 3, "max_batch": 1})
    held = queue_memory.measure(few, [clip.path.read_bytes() for clip in speech], requests=20)
    assert held.requests == 20
    assert 0 < held.before < held.held + 2**20  # twenty short clips may find room in what is free already
    assert held.added == held.held - held.before


def test_the_task_tells_all_of_it_in_one_go(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASR_DEVICE", "cpu")
    monkeypatch.setattr(measure, "LONE_CLIP_REPEATS", 2)
    measure.load(MockContext(), clients=2, clips=2, rounds=1)
    out = capsys.readouterr().out
    assert "1, without HTTP" in out
    assert "2, over HTTP" in out
    assert "To a lone clip of 3 s HTTP and its queue add" in out


@pytest.mark.parametrize(("flag", "value"), [("clients", 0), ("clips", 1), ("rounds", 0)])
def test_numbers_that_make_no_sense_are_refused(flag: str, value: int) -> None:
    with pytest.raises(Exit, match=f"--{flag}: {value}, expected"):
        measure.load(MockContext(), **{flag: value})
