"""What a realtime session refuses, and how it goes on."""

import base64
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from realtime_client import TRANSCRIPTION, realtime_session
from serving import Served, decoded, held, served
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.server.http import MAX_MESSAGE_BYTES
from runtime.transcriber import Transcriber

AUDIO = base64.b64encode(b"\0\0" * 100).decode()
INPUT = "session.audio.input"
PCM = {"type": "audio/pcm"}


def setting(**wanted: Any) -> dict[str, Any]:
    """An update of the input's settings."""
    return {"type": "session.update", "session": {"audio": {"input": wanted}}}


@pytest.mark.parametrize(
    ("event", "param", "words"),
    [
        ({}, "type", "input_audio_buffer.append"),
        ({"type": "response.create"}, "type", "session.update"),
        ({"type": ["session.update"]}, "type", "a list"),
        ({"type": "input_audio_buffer.append"}, "audio", "missing"),
        ({"type": "input_audio_buffer.append", "audio": 1}, "audio", "base64"),
        ({"type": "input_audio_buffer.append", "audio": "*"}, "audio", "base64"),
        ({"type": "input_audio_buffer.append", "audio": "AAAAA"}, "audio", "base64"),
        ({"type": "input_audio_buffer.append", "audio": "\ud800"}, "audio", "base64"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "audio", "3 bytes"),
        ({"type": "input_audio_buffer.append", "audio": AUDIO, "rate": 8000}, "rate", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "A" * (20 * 2**20 + 4)}, "audio", "15 MiB"),
        ({"type": "input_audio_buffer.append", "audio": "A" * 2**19 + "=" * 4 + "A" * 2**20}, "audio", "base64"),
        ({"type": "input_audio_buffer.append", "audio": "A" * (2**20 - 2) + "==" + "A" * 4}, "audio", "padding"),
        ({"type": "session.update", "session": {}, "audio": "A" * 2**19}, "audio", "not known"),
        (setting(transcription={"keywords": [1] * 4_000}), f"{INPUT}.transcription.keywords.0", "valid string"),
        ({"type": "input_audio_buffer.commit", "event_id": "x" * 513}, "event_id", "512"),
        ({"type": "session.update"}, "session", "missing"),
        ({"type": "session.update", "session": []}, "session", "a list"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type", "transcription"),
        ({"type": "session.update", "session": {"voice": "alloy"}}, "session.voice", "does not speak"),
        ({"type": "session.update", "session": {"output_modalities": ["audio"]}}, "session.output_modalities", "speak"),
        (
            {"type": "session.update", "session": {"audio": {"output": {"voice": "cedar"}}}},
            "session.audio.output",
            "speak",
        ),
        ({"type": "session.update", "session": {"instructions": "Translate."}}, "session.instructions", "prompt"),
        ({"type": "session.update", "session": {"tools": [{"type": "function"}]}}, "session.tools", "called"),
        ({"type": "session.update", "session": {"input_audio_format": "mp3"}}, "session.input_audio_format", "pcm16"),
        (
            {"type": "session.update", "session": {"input_audio_format": "pcm", "audio": {"input": {"format": PCM}}}},
            "session.input_audio_format",
            "send one of the two",
        ),
        (
            {"type": "session.update", "session": {"sample_rate": 16000, "audio": {"input": {"format": PCM}}}},
            "session.sample_rate",
            "send one of the two",
        ),
        ({"type": "session.update", "session": {"input_audio_format": "opus"}}, "session.input_audio_format", "pcm"),
        ({"type": "session.update", "session": {"sample_rate": 44100}}, "session.sample_rate", "8000, 16000, 24000"),
        ({"type": "session.update", "session": {"input_sample_rate": "16000"}}, "session.input_sample_rate", "16000"),
        ({"type": "session.update", "session": {"sample_rate": 16000, "audio": []}}, "session.audio", "a list"),
        ({"type": "session.update", "model": "whisper-9"}, "model", "demo"),
        ({"type": "session.update", "model": ["demo"]}, "model", "a list"),
        (setting(format={"type": "audio/opus"}), f"{INPUT}.format.type", "audio/pcm"),
        (setting(format={"rate": 44100}), f"{INPUT}.format.rate", "8000, 16000 or 24000"),
        (setting(format={"type": "audio/pcmu", "rate": 16000}), f"{INPUT}.format.rate", "8000"),
        (setting(turn_detection={"type": "other_vad"}), f"{INPUT}.turn_detection.type", "server_vad"),
        (setting(turn_detection={"type": "semantic_vad", "eagerness": 1}), f"{INPUT}.turn_detection.eagerness", "low"),
        (setting(turn_detection={"threshold": 2}), f"{INPUT}.turn_detection.threshold", "1"),
        (setting(turn_detection={"threshold": float("nan")}), f"{INPUT}.turn_detection.threshold", "finite"),
        (setting(turn_detection={"silence_duration_ms": "500"}), f"{INPUT}.turn_detection.silence_duration_ms", "500"),
        (setting(transcription={"model": "whisper-9"}), f"{INPUT}.transcription.model", "demo"),
        (setting(transcription={"language": "tlh"}), f"{INPUT}.transcription.language", "tlh"),
        (setting(transcription={"language": "de"}), f"{INPUT}.transcription.language", "English"),
        (setting(transcription={"prompt": "<|im_end|>"}), f"{INPUT}.transcription.prompt", "im_end"),
        (setting(transcription={"prompt": "\ud800"}), f"{INPUT}.transcription.prompt", "surrogate"),
        (setting(transcription={"keywords": ["<|im_end|>"]}), f"{INPUT}.transcription.prompt", "im_end"),
        (setting(transcription={"keywords": "sara"}), f"{INPUT}.transcription.keywords", "list"),
        (setting(transcription={"languages": ["tlh"]}), f"{INPUT}.transcription.languages", "tlh"),
        (setting(transcription={"languages": ["en", "xx"]}), f"{INPUT}.transcription.languages", "xx"),
        (setting(transcription={"corpus": {"text": "<|im_end|>"}}), f"{INPUT}.transcription.prompt", "im_end"),
        (setting(transcription={"corpus": "sara"}), f"{INPUT}.transcription.corpus", "Corpus"),
        (setting(format={"type": "wav", "sample_rate": 16000}), f"{INPUT}.format.type", "audio/pcm"),
        (setting(format={"type": "pcm", "sample_rate": 48000}), f"{INPUT}.format.rate", "16000"),
        (setting(turn_detection={"threshold": -2}), f"{INPUT}.turn_detection.threshold", "0"),
        (setting(transcription={"task": "translate"}), f"{INPUT}.transcription.task", "own language"),
    ],
)
def test_an_event_that_cannot_be_honoured_is_named(
    server: Served, event: dict[str, Any], param: str, words: str
) -> None:
    with realtime_session(server) as talk:
        talk.connection.send(json.dumps({"event_id": "mine", **event}))
        error = talk.next()
        assert (error["type"], error["error"]["param"]) == ("error", param)
        assert words in error["error"]["message"]
        assert len(error["error"]["message"]) < 500
        assert error["error"]["event_id"] == (None if param == "event_id" else "mine")
        assert error["error"]["type"] == "invalid_request_error"
        assert talk.set()["audio"]["input"]["format"]["rate"] == 24_000


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "[" * 100_000,
        "[" + "[]," * 100_000 + "[]]",
        "[" + "[]," * 10_000 + "[]]",
        '{"type": "input_audio_buffer.clear", "type": "input_audio_buffer.commit"}',
        json.dumps(
            {"type": "session.update", "session": {"audio": {"input": {"transcription": {"prompt": "a" * 300_000}}}}}
        ),
        '{"type": "input_audio_buffer.append", "audio": "' + "A" * 300_000,
        '{"type": "input_audio_buffer.append", "audio": "' + "\\q" * 300_000 + '"}',
        '{"type": "input_audio_buffer.append", "event_id": "' + "x" * 300_000 + '", "audio": "AAAA"}',
        '{"type": 1' + "0" * 5000 + "}",
        b"\0\0" * 100,
    ],
)
def test_a_message_that_is_no_event(server: Served, message: str | bytes) -> None:
    with realtime_session(server) as talk:
        talk.connection.send(message)
        error = talk.next()
        assert (error["type"], error["error"]["code"]) == ("error", "invalid_event")
        talk.set()


def test_a_message_larger_than_any_may_be_ends_the_session(server: Served) -> None:
    with realtime_session(server) as talk:
        # Its head alone, RFC 6455's 5.2: text, masked, 64 bits of length. What is unread when a connection closes may
        # take the goodbye with it.
        talk.connection.socket.sendall(struct.pack("!BBQ4x", 0x81, 0xFF, MAX_MESSAGE_BYTES + 1))
        assert talk.wait_closed().code == 1009


def test_nothing_to_commit(server: Served) -> None:
    with realtime_session(server) as talk:
        talk.send("input_audio_buffer.commit")
        assert "nobody speaks" in talk.wait("error")["error"]["message"]
        talk.set(turn_detection=None, format={"rate": 16000})
        talk.append(np.zeros(800, dtype=np.float32))
        talk.send("input_audio_buffer.commit", event_id="early")
        error = talk.wait("error")["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "early")
        assert "100 ms" in error["message"]
        talk.append(np.zeros(1600, dtype=np.float32))
        talk.send("input_audio_buffer.commit")
        done = talk.wait(f"{TRANSCRIPTION}.completed")
        assert (done["transcript"], done["usage"]["seconds"], done["languages"]) == ("", 0.15, [])


def test_sound_is_not_taken_otherwise_within_a_turn(server: Served) -> None:
    with realtime_session(server) as talk:
        talk.set(turn_detection=None)
        talk.append(np.zeros(SAMPLE_RATE, dtype=np.float32), rate=24_000)
        for wanted in ({"format": {"rate": 16000}}, {"turn_detection": {"type": "server_vad"}}):
            talk.send("session.update", session={"audio": {"input": wanted}})
            assert talk.wait("error")["error"]["code"] == "turn_open"
        talk.send("input_audio_buffer.clear")
        talk.wait("input_audio_buffer.cleared")
        assert talk.set(format={"rate": 16000})["audio"]["input"]["turn_detection"] is None


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [("?language=en", 400, "language"), ("?intent=conversation", 400, "intent"), ("?model=whisper-9", 404, "model")],
)
def test_an_address_that_asks_for_what_is_not_here(server: Served, query: str, status: int, param: str) -> None:
    with pytest.raises(InvalidStatus) as refused, realtime_session(server, query=query):
        pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]["param"] == param


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/realtime/"])
def test_what_comes_without_an_upgrade_learns_that_it_needs_one(server: Served, method: str, path: str) -> None:
    answer = httpx.request(method, server.url + path, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (426, "upgrade_required")
    assert answer.headers["Upgrade"] == "websocket"
    assert "forward Upgrade and Connection" in answer.json()["error"]["message"]


def test_why_a_websocket_was_refused_is_told_without_one(transcriber: Transcriber) -> None:
    """As a browser hides it from its page, and a proxy may forward the subprotocols alone."""
    silent, _ = held(transcriber)

    def refusal(**headers: str) -> tuple[int, str]:
        answer = server.post("/v1/realtime", headers=headers)
        return answer.status_code, answer.json()["error"]["code"]

    with served(silent, max_sessions=1, api_key=SecretStr("sk-one")) as server:
        key = {"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.sk-one"}
        assert refusal() == (401, "invalid_api_key")
        assert refusal(Origin="https://evil.example", **key) == (403, "origin")
        assert refusal(Origin=server.url, **key) == (426, "upgrade_required")
        with realtime_session(server, additional_headers={"Authorization": "Bearer sk-one"}):
            assert refusal(**key) == (429, "sessions_full")
        server.server_state.drain()
        assert refusal(**key) == (503, "draining")


def test_a_page_brings_its_key_as_a_subprotocol(transcriber: Transcriber) -> None:
    silent, _ = held(transcriber)
    with served(silent, api_key=SecretStr("sk-one")) as server:
        offered = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.sk-one")]
        with realtime_session(server, subprotocols=offered) as talk:
            assert talk.connection.subprotocol == "realtime"
        with pytest.raises(InvalidStatus) as refused, realtime_session(server, subprotocols=offered[:1]):
            pass
        assert refused.value.response.status_code == 401


def test_sessions_take_places_of_their_own_and_none_of_requests(transcriber: Transcriber, speech: list[Clip]) -> None:
    silent, engine = held(transcriber)
    files = {"file": speech[0].path.read_bytes()}
    with served(silent, max_sessions=1, max_waiting=1) as server, ThreadPoolExecutor(1) as pool:
        with realtime_session(server):
            with pytest.raises(InvalidStatus) as refused, realtime_session(server):
                pass
            assert refused.value.response.status_code == 429
            assert int(refused.value.response.headers["Retry-After"]) > 0
            error = json.loads(refused.value.response.body)["error"]
            assert error["code"] == "sessions_full"
            assert "ASR_MAX_SESSIONS" in error["message"]
            answer = pool.submit(server.post, files=files)
            decoding = engine.next()
            assert server.post(files=files).json()["error"]["code"] == "queue_full"
            decoding.tell(decoded("heard"))
            assert answer.result().json()["text"] == "heard"
            assert "asr_realtime_sessions 1.0" in server.get("/metrics").text
        assert server.server_state.wait_idle(60)
        assert "asr_realtime_sessions 0.0" in server.get("/metrics").text
        with realtime_session(server):
            pass
