"""Many requests at once: places, timeouts, hang-ups, failures; the engine is held still where it must be."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from serving import PATIENCE, TRANSCRIPTIONS, HeldEngine, Served, hang_up_after_upload, held, served

from runtime.demo import Clip
from runtime.engines import Decoded, EngineError
from runtime.model.device import OutOfMemoryError
from runtime.server.service import FETCH_THREADS, PREFETCH_FACTOR, long_slots, short_slots
from runtime.transcriber import Transcriber


@contextmanager
def still(
    transcriber: Transcriber, *, together: int | None = None, **changes: Any
) -> Iterator[tuple[Served, HeldEngine]]:
    """A server whose engine is held still; `together` is how many it would decode at once, if not the usual number."""
    silent, engine = held(transcriber)
    engine.together = together or engine.together
    with served(silent, **changes) as server:
        yield server, engine


def answer_of(transcriber: Transcriber, text: str) -> Decoded:
    tokens = transcriber.loaded.processor.tokenizer(f"language English<asr_text>{text}").input_ids
    return Decoded(tuple(tokens), f"language English<asr_text>{text}", truncated=False)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for clients that wait."""
    with ThreadPoolExecutor(32) as threads:
        yield threads


def ask(pool: ThreadPoolExecutor, server: Served, clip: Clip, **fields: str) -> "Future[httpx.Response]":
    return pool.submit(server.post, files={"file": clip.path.read_bytes()}, data=fields)


def test_a_full_queue_answers_at_once_and_a_place_becomes_free(
    transcriber: Transcriber, speech: list[Clip], pool: ThreadPoolExecutor
) -> None:
    with still(transcriber, max_waiting=2) as (server, engine):
        waiting = [ask(pool, server, speech[0]) for _ in range(2)]
        first, second = engine.next(), engine.next()
        for refused in (server.post(files={"file": b"x"}), server.post("/v1/chat/completions", json={})):
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) > 0
            assert refused.json()["error"]["code"] == "queue_full"
        with server.client() as client, pytest.raises(openai.RateLimitError):
            client.audio.transcriptions.create(file=speech[0].path, model="demo")
        for decoding in (first, second):
            decoding.tell(answer_of(transcriber, "one"))
        assert [future.result().status_code for future in waiting] == [200, 200]
        third = ask(pool, server, speech[0])
        engine.next().tell(answer_of(transcriber, "two"))
        assert third.result().json()["text"] == "two"


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
def test_hanging_up_takes_the_request_out_and_frees_its_place(
    transcriber: Transcriber, speech: list[Clip], pool: ThreadPoolExecutor, fields: dict[str, str]
) -> None:
    with still(transcriber, max_waiting=1) as (server, engine):
        connection = hang_up_after_upload(server, speech[0], **fields)
        decoding = engine.next()
        assert not decoding.cancelled.is_set()
        connection.close()
        assert decoding.cancelled.wait(PATIENCE)
        assert server.server_state.wait_idle(PATIENCE)
        other = ask(pool, server, speech[0])
        engine.next().tell(answer_of(transcriber, "still here"))
        assert other.result().json()["text"] == "still here"


def test_hanging_up_in_the_middle_of_an_upload_leaves_nothing(transcriber: Transcriber) -> None:
    with still(transcriber) as (server, engine):
        with socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as connection:
            head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            head += "Expect: 100-continue\r\nContent-Type: multipart/form-data; boundary=y\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 100")
            assert server.server_state.accepted == 1
        assert server.server_state.wait_idle(PATIENCE)
        assert server.service.pending == 0
        assert engine.due.empty()


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=y", "application/json"])
def test_an_upload_that_never_ends_is_told_so(transcriber: Transcriber, kind: str) -> None:
    path = TRANSCRIPTIONS if kind.startswith("multipart") else "/v1/chat/completions"
    with still(transcriber, request_timeout_seconds=0.3) as (server, _):
        with socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nContent-Type: {kind}\r\n\r\n"
            connection.sendall(head.encode() + b"--y\r\n")
            with connection.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 408")
                assert b"slow_upload" in answer.read()
        assert server.server_state.wait_idle(PATIENCE)


def test_a_request_that_takes_too_long_is_answered_and_cancelled(transcriber: Transcriber, speech: list[Clip]) -> None:
    with still(transcriber, request_timeout_seconds=0.3) as (server, engine):
        answer = server.post(files={"file": speech[0].path.read_bytes()})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert "0.3 s" in answer.json()["error"]["message"]
        assert engine.next().cancelled.wait(PATIENCE)
        assert server.service.pending == 0


def test_a_failing_request_touches_no_other(
    transcriber: Transcriber, speech: list[Clip], pool: ThreadPoolExecutor
) -> None:
    with still(transcriber) as (server, engine):
        failing = ask(pool, server, speech[0])
        doomed = engine.next()
        fine = ask(pool, server, speech[0])
        healthy = engine.next()
        doomed.tell(OutOfMemoryError("cpu", "a segment does not fit"))
        answer = failing.result()
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        assert "does not fit" in answer.json()["error"]["message"]
        assert not healthy.cancelled.is_set()
        healthy.tell(answer_of(transcriber, "fine"))
        assert fine.result().json()["text"] == "fine"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ValueError("what a surprise"), 500, "decoding_failed"),
        (EngineError("the engine", "has failed"), 503, "engine_failed"),
    ],
)
def test_failures_of_the_engine_are_told_without_a_traceback(
    transcriber: Transcriber, speech: list[Clip], pool: ThreadPoolExecutor, failure: Exception, status: int, code: str
) -> None:
    with still(transcriber) as (server, engine):
        waiting = ask(pool, server, speech[0])
        engine.next().tell(failure)
        answer = waiting.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert str(failure) in answer.json()["error"]["message"]
    assert "Traceback" not in answer.text


def test_a_stream_that_fails_ends_with_the_error(
    transcriber: Transcriber, speech: list[Clip], pool: ThreadPoolExecutor
) -> None:
    with still(transcriber) as (server, engine), server.client() as client:
        events = iter(client.audio.transcriptions.create(file=speech[0].path, model="demo", stream=True))
        decoding = engine.next()
        for token in answer_of(transcriber, "station train").tokens:
            decoding.tell(token)
        assert next(events).to_dict()["delta"]
        decoding.tell(ValueError("what a surprise"))
        with pytest.raises(openai.APIError, match="what a surprise"):
            list(events)
        raw = ask(pool, server, speech[0], stream="true")
        engine.next().tell(ValueError("what a surprise"))
        last = json.loads(raw.result().text.strip().rpartition("data: ")[2])
        assert last["error"]["code"] == "decoding_failed"


def test_waiting_costs_neither_threads_nor_decoded_audio(
    transcriber: Transcriber, speech: list[Clip], pool: ThreadPoolExecutor
) -> None:
    with still(transcriber, together=1) as (server, engine):
        waiting = [ask(pool, server, speech[0]) for _ in range(3 * PREFETCH_FACTOR)]
        due = [engine.next() for _ in range(PREFETCH_FACTOR)]
        assert engine.due.empty()  # the others' audio is not even decoded
        names = [thread.name for thread in threading.enumerate()]
        places = short_slots(engine) + long_slots(engine, transcriber.settings)
        assert len([name for name in names if name.startswith("audio-")]) == places
        assert len([name for name in names if name.startswith("url-")]) == FETCH_THREADS
        for number in range(3 * PREFETCH_FACTOR):
            (due.pop() if due else engine.next()).tell(answer_of(transcriber, str(number)))
        assert {future.result().json()["text"] for future in waiting} == {
            str(number) for number in range(3 * PREFETCH_FACTOR)
        }


def test_many_clients_get_what_they_would_get_alone(
    transcriber: Transcriber, speech: list[Clip], pool: ThreadPoolExecutor
) -> None:
    with served(transcriber) as server:
        waiting = [(clip, ask(pool, server, clip)) for clip in speech * 4]
        broken = [pool.submit(server.post, files={"file": b"broken"}) for _ in range(8)]
        for clip, future in waiting:
            assert future.result().json()["text"] == clip.text
        assert {future.result().status_code for future in broken} == {400}
