"""Appends of minutes at once: heard to the end, while others have their turn, and refused by an event beyond 15 MiB."""

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from realtime_client import TRANSCRIPTION, CountingEngine, RealtimeClient, realtime_session
from serving import PATIENCE, HeldEngine, Served, decoded, held, served
from websockets.frames import CloseCode

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.sandbox import Cancellation
from runtime.server.realtime.events import MAX_AUDIO_BYTES
from runtime.server.service import DECODE_THREADS
from runtime.transcriber import Transcriber

SECONDS = MAX_AUDIO_BYTES / 2 / 24_000
NOISE = np.random.default_rng(1).normal(0, 3000, MAX_AUDIO_BYTES // 2).astype("<i2").tobytes()


@contextmanager
def committing(server: Served) -> Iterator[RealtimeClient]:
    """A session whose client commits."""
    with realtime_session(server, max_size=None) as talk:
        talk.set(turn_detection=None)
        yield talk


def append(talk: RealtimeClient, sound: bytes) -> None:
    """All of it in one event."""
    talk.send("input_audio_buffer.append", audio=base64.b64encode(sound).decode(), event_id="large")


def test_an_append_of_15_mib_is_heard_while_others_are_answered(transcriber: Transcriber) -> None:
    engine = CountingEngine(transcriber.engine)
    with served(replace(transcriber, engine=engine)) as server, committing(server) as talk:
        append(talk, NOISE)
        talk.send("input_audio_buffer.commit")
        talk.wait(f"{TRANSCRIPTION}.delta")  # it is being heard
        assert server.get("/health/live").status_code == 200
        with committing(server) as other:
            other.append(np.zeros(SAMPLE_RATE, dtype=np.float32), rate=24_000)
            other.send("input_audio_buffer.commit")
            other.wait(f"{TRANSCRIPTION}.completed")
        assert not talk.of_type("input_audio_buffer.committed")
        done = talk.wait(f"{TRANSCRIPTION}.completed")
        assert done["usage"]["seconds"] == pytest.approx(SECONDS, abs=0.01)
        assert done["transcript"] == talk.transcript_of(done["item_id"])


def test_a_large_append_does_not_wait_for_files_that_are_decoded(transcriber: Transcriber) -> None:
    engine = CountingEngine(transcriber.engine)
    with served(replace(transcriber, engine=engine)) as server, committing(server) as talk, reading(server):
        append(talk, NOISE[: 4 << 20])
        talk.send("input_audio_buffer.commit")
        assert talk.wait(f"{TRANSCRIPTION}.completed")["usage"]["seconds"] == pytest.approx(
            (2 << 20) / 24_000, abs=0.01
        )
        talk.send("session.update", session={"audio": {"input": {"transcription": {"prompt": "a " * 9000}}}})
        assert "18000 tokens" in talk.wait("error")["error"]["message"]


def test_a_timed_transcript_does_not_wait_for_files_that_are_decoded(
    transcriber: Transcriber, speech: list[Clip]
) -> None:
    silent, engine = held(transcriber)
    with served(silent) as server, ThreadPoolExecutor(1) as pool:
        fields = {"response_format": "srt"}
        answer = pool.submit(server.post, files={"file": speech[0].path.read_bytes()}, data=fields)
        decoding = engine.next()
        with reading(server):
            decoding.tell(decoded("hello"))
            assert "hello" in answer.result(PATIENCE).text


@contextmanager
def reading(server: Served) -> Iterator[None]:
    """All threads that read files are busy."""
    done = threading.Event()

    def read() -> None:
        done.wait(PATIENCE)

    busy = [
        asyncio.run_coroutine_threadsafe(server.service.in_body_thread(read, Cancellation()), server.http_server.loop)
        for _ in range(DECODE_THREADS)
    ]
    try:
        yield
    finally:
        done.set()
        for reader in busy:
            reader.result(PATIENCE)


def test_more_than_15_mib_is_refused_and_the_session_goes_on(transcriber: Transcriber) -> None:
    engine = CountingEngine(transcriber.engine)
    with served(replace(transcriber, engine=engine)) as server, committing(server) as talk:
        append(talk, NOISE + NOISE[: MAX_AUDIO_BYTES // 2])
        error = talk.wait("error")["error"]
        assert (error["code"], error["event_id"], error["param"]) == ("too_large", "large", "audio")
        assert "15 MiB" in error["message"]
        append(talk, NOISE[: 2 * 24_000])
        talk.send("input_audio_buffer.commit")
        assert talk.wait(f"{TRANSCRIPTION}.completed")["usage"]["seconds"] == 1


def waiting(transcriber: Transcriber) -> tuple[Transcriber, HeldEngine]:
    """With an engine that is done with nothing, and so busy that no growing segment is decoded."""
    silent, engine = held(transcriber)
    engine.together = 0
    return silent, engine


def test_a_large_append_waits_for_what_is_decoded_and_is_heard_to_the_end(transcriber: Transcriber) -> None:
    silent, engine = waiting(transcriber)
    with served(silent) as server, committing(server) as talk:
        append(talk, NOISE)
        talk.send("input_audio_buffer.commit")
        heard = 0.0
        while heard < SECONDS - 0.1:
            decoding = engine.next()
            heard += decoding.utterance.seconds
            decoding.tell(RuntimeError("so far"))
        assert talk.wait(f"{TRANSCRIPTION}.failed")["error"]["code"] == "decoding_failed"


def test_a_client_that_leaves_while_its_append_waits_frees_everything(transcriber: Transcriber) -> None:
    silent, engine = waiting(transcriber)
    with served(silent) as server, committing(server) as talk:
        append(talk, NOISE)
        decoding = engine.next()
        talk.connection.socket.shutdown(socket.SHUT_RDWR)
        assert decoding.cancelled.wait(PATIENCE)
        assert server.server_state.wait_idle(PATIENCE)
        assert server.service.pending == 0


@pytest.mark.parametrize(("queued", "close_frame"), [(1, True), (1, False), (2000, False)])
def test_a_client_that_leaves_is_noticed_behind_events_that_wait(
    transcriber: Transcriber, queued: int, close_frame: bool
) -> None:
    """Few events are read ahead, up to the close frame; many are not, but the system knows of the closed connection."""
    silent, engine = waiting(transcriber)
    with served(silent) as server, committing(server) as talk:
        append(talk, NOISE)
        decoding = engine.next()
        for _ in range(queued):
            talk.send("response.cancel")
        if close_frame:
            with talk.connection.protocol_mutex:
                talk.connection.protocol.send_close(CloseCode.GOING_AWAY)
                talk.connection.send_data()
        else:
            talk.connection.socket.shutdown(socket.SHUT_RDWR)
        assert decoding.cancelled.wait(5)
        assert server.server_state.wait_idle(PATIENCE)


def test_pings_of_the_client_are_answered_while_its_append_waits(transcriber: Transcriber) -> None:
    silent, engine = waiting(transcriber)
    with served(silent) as server, committing(server) as talk:
        append(talk, NOISE)
        talk.connection.send(json.dumps({"type": "input_audio_buffer.commit"}))
        engine.next()
        assert talk.connection.ping().wait(PATIENCE)
