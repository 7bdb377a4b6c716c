"""Long files: they take their turns, and few of them are in memory at once."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from audio_files import sndfile
from serving import PATIENCE, TRANSCRIPTIONS, HeldDecoding, decoded, held, served

from runtime.audio import SAMPLE_RATE, Limits, load
from runtime.demo import Clip
from runtime.server.service import LONG_AUDIO_SECONDS, long_slots
from runtime.transcriber import Transcriber

HOUR = 3600
SEGMENTS = 12  # of a file that is 30 s longer than what counts as long


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for clients that wait."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


def recording(path: Path, seconds: float) -> bytes:
    """What is said in a clip, again and again for so long."""
    said = load(path, limits=Limits()).samples[:: SAMPLE_RATE // 8000]
    return sndfile(np.resize(said, (int(seconds * 8000), 1)), 8000, container="WAV", subtype="PCM_U8")


def answer(decoding: HeldDecoding) -> None:
    """Let an utterance end."""
    decoding.tell(decoded("one"))


def test_an_hour_does_not_keep_short_ones_waiting(transcriber: Transcriber, speech: list[Clip]) -> None:
    hour = recording(speech[0].path, HOUR)
    with (
        served(transcriber) as server,
        httpx.stream(
            "POST", server.url + TRANSCRIPTIONS, files={"file": hour}, data={"stream": "true"}, timeout=PATIENCE
        ) as stream,
    ):
        events = stream.iter_lines()
        assert "transcript.text.delta" in next(events)
        for clip in speech:
            assert server.post(files={"file": clip.path.read_bytes()}).json()["text"] == clip.text
        status = transcriber.engine.status()
        assert status.waiting > HOUR / transcriber.settings.segment_seconds / 2


def test_few_long_files_are_in_memory_and_short_ones_pass_them(
    transcriber: Transcriber, speech: list[Clip], pool: ThreadPoolExecutor
) -> None:
    silent, engine = held(transcriber)
    engine.together = 1
    with served(silent, segment_seconds=30) as server:
        long = recording(speech[0].path, LONG_AUDIO_SECONDS + 30)
        most = long_slots(server.service.transcriber.engine, server.service.settings)

        def ask(file: bytes) -> "Future[httpx.Response]":
            return pool.submit(server.post, files={"file": file})

        waiting = [ask(long) for _ in range(most + 4)]
        due = [engine.next() for _ in range(most * SEGMENTS)]
        short = ask(speech[0].path.read_bytes())
        passing = engine.next()
        assert passing.utterance.seconds == pytest.approx(load(speech[0].path, limits=Limits()).seconds)
        answer(passing)
        assert short.result().json()["text"] == "one"
        assert engine.due.empty()
        for _ in range(len(waiting) * SEGMENTS):
            answer(due.pop() if due else engine.next())
        assert [future.result().status_code for future in waiting] == [200] * len(waiting)
