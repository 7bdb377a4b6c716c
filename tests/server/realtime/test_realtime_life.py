"""How realtime sessions end: drained, left, failed, idle, unread."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from realtime_client import TRANSCRIPTION, RealtimeClient, realtime_session, spoken
from serving import PATIENCE, HeldEngine, Served, decoded, held, served
from websockets.exceptions import ConnectionClosed

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.engines import Decoded, EngineError
from runtime.model.prompt import ASR_TEXT
from runtime.transcriber import Transcriber

NOISE = np.random.default_rng(1).normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)


@contextmanager
def speaking(transcriber: Transcriber, **changes: Any) -> Iterator[tuple[Served, HeldEngine, RealtimeClient]]:
    """A session, of which 1.5 s are being decoded."""
    silent, engine = held(transcriber)
    with served(silent, **changes) as server, realtime_session(server) as talk:
        talk.set(format={"rate": 16000}, turn_detection=None)
        talk.append(NOISE[: 3 * SAMPLE_RATE // 2])
        talk.set()
        yield server, engine, talk


def test_draining_tells_what_was_said_and_takes_no_more(transcriber: Transcriber, speech: list[Clip]) -> None:
    with served(transcriber) as server, realtime_session(server) as talk:
        talk.set(format={"rate": 16000})
        sound = spoken(transcriber, speech[:1])
        talk.append(sound[: -int(0.8 * SAMPLE_RATE)])
        talk.set()
        server.server_state.drain()
        close = talk.wait_closed()
        assert close.code == 1001
        assert "draining" in close.reason
        assert talk.of_type(f"{TRANSCRIPTION}.completed")[0]["transcript"] == speech[0].text
        assert talk.events[-1]["error"]["code"] == "stopping"
        assert server.server_state.wait_idle(PATIENCE)


def test_a_client_that_vanishes_frees_everything(transcriber: Transcriber) -> None:
    with speaking(transcriber) as (server, engine, talk):
        decoding = engine.next()
        talk.connection.socket.shutdown(socket.SHUT_RDWR)
        assert decoding.cancelled.wait(PATIENCE)
        assert server.server_state.wait_idle(PATIENCE)
        assert server.service.pending == 0


def test_a_growing_segment_is_with_the_engine_once_and_gives_way_to_the_whole(transcriber: Transcriber) -> None:
    with speaking(transcriber) as (_, engine, talk):
        partial = engine.next()
        assert partial.utterance.seconds == pytest.approx(1.0, abs=0.2)
        talk.append(NOISE)
        talk.set()
        assert engine.due.empty()
        talk.send("input_audio_buffer.commit")
        whole = engine.next()
        assert partial.cancelled.is_set()
        assert whole.utterance.seconds == 4.5
        whole.tell(decoded("one two"))
        assert talk.wait(f"{TRANSCRIPTION}.completed")["transcript"] == "one two"


def test_growing_segments_wait_while_the_engine_is_busy_and_whole_ones_do_not(transcriber: Transcriber) -> None:
    with speaking(transcriber) as (server, engine, _), realtime_session(server) as other:
        engine.together = 1
        other.set(format={"rate": 16000}, turn_detection=None)
        other.append(NOISE)
        other.set()
        assert engine.due.qsize() == 1
        other.send("input_audio_buffer.commit")
        engine.next()
        assert engine.next().utterance.seconds == 3.0


def test_a_segment_that_cannot_be_decoded_fails_alone(transcriber: Transcriber) -> None:
    with speaking(transcriber) as (_, engine, talk):
        engine.next().tell(RuntimeError("bad luck"))
        talk.send("input_audio_buffer.commit")
        engine.next().tell(RuntimeError("more of it"))
        failed = talk.wait(f"{TRANSCRIPTION}.failed")
        assert failed["error"]["code"] == "decoding_failed"
        assert "more of it" in failed["error"]["message"]
        assert failed["item_id"] == talk.of_type("input_audio_buffer.committed")[0]["item_id"]
        talk.append(NOISE[:8000])
        talk.send("input_audio_buffer.commit")
        engine.next().tell(decoded("three"))
        assert talk.wait(f"{TRANSCRIPTION}.completed")["transcript"] == "three"


def test_what_the_token_limit_cut_off_is_said_to_be_missing(transcriber: Transcriber) -> None:
    with speaking(transcriber) as (_, engine, talk):
        talk.send("input_audio_buffer.commit")
        engine.next()  # of the growing segment, cancelled by now
        engine.next().tell(Decoded((1,), f"language English{ASR_TEXT}one", truncated=True))
        assert talk.wait(f"{TRANSCRIPTION}.completed")["truncated"] is True


def test_an_engine_that_fails_ends_the_session(transcriber: Transcriber) -> None:
    with speaking(transcriber) as (_, engine, talk):
        engine.next().tell(EngineError("engine", "has failed: out of luck"))
        close = talk.wait_closed()
        assert (close.code, talk.events[-1]["error"]["code"]) == (1011, "engine_failed")
        assert "out of luck" in close.reason


def test_sessions_are_given_up_with_the_rest(transcriber: Transcriber) -> None:
    with speaking(transcriber) as (server, engine, talk):
        decoding = engine.next()
        server.http_server.call(server.service.cancel_all)
        close = talk.wait_closed()
        assert (close.code, talk.events[-1]["error"]["code"]) == (1001, "stopping")
        assert decoding.cancelled.is_set()


def test_a_session_that_says_nothing_is_ended(transcriber: Transcriber) -> None:
    silent, _ = held(transcriber)
    with served(silent, request_timeout_seconds=1) as server, realtime_session(server) as talk:
        close = talk.wait_closed()
        assert close.code == 1001
        assert "idle" in close.reason


def test_a_session_that_has_sent_no_sound_is_ended_sooner(transcriber: Transcriber) -> None:
    silent, engine = held(transcriber)
    with (
        served(silent, session_idle_seconds=1) as server,
        realtime_session(server) as speaking,
        realtime_session(server) as talk,
    ):
        speaking.set(turn_detection=None)
        speaking.append(NOISE)
        speaking.set()
        engine.next().tell(decoded("one"))
        close = talk.wait_closed()
        assert (close.code, "idle for longer than the limit of 1 s" in close.reason) == (1001, True)
        speaking.set()


def test_a_client_that_reads_nothing_is_given_up(transcriber: Transcriber) -> None:
    silent, _ = held(transcriber)
    with served(silent, request_timeout_seconds=1) as server:
        line = socket.create_connection(("127.0.0.1", server.http_server.port))
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with realtime_session(server, sock=line, max_queue=1, ping_interval=None) as talk:

            def send() -> None:
                event = json.dumps({"type": "input_audio_buffer.clear", "x" * 70: 1})
                while True:
                    talk.connection.send(event)

            with ThreadPoolExecutor(1) as pool:
                sending = pool.submit(send)
                assert server.server_state.wait_idle(PATIENCE)
                line.shutdown(socket.SHUT_RDWR)
                assert isinstance(sending.exception(), (ConnectionClosed, OSError))
