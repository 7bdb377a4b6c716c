"""Audio in chat messages, as users of vLLM send it."""

import base64
from typing import Any

import openai
import pytest
from serving import Served, served

from runtime.measure.clips import Clip
from runtime.transcriber import Transcriber

PATH = "/v1/chat/completions"


def encoded(clip: Clip) -> str:
    return base64.b64encode(clip.path.read_bytes()).decode()


def spoken(clip: Clip) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": encoded(clip), "format": "wav"}}


def linked(clip: Clip) -> dict[str, Any]:
    return {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{encoded(clip)}"}}


@pytest.mark.parametrize("part", [spoken, linked])
def test_audio_is_answered_with_its_text(client: openai.OpenAI, clips: list[Clip], part: Any) -> None:
    for clip in clips:
        messages: list[Any] = [{"role": "user", "content": [part(clip)]}]
        if clip.context:
            messages.insert(0, {"role": "system", "content": clip.context})
        answer = client.chat.completions.create(model="demo", messages=messages, temperature=0)
        assert answer.choices[0].message.content == clip.text
        assert answer.choices[0].finish_reason == "stop"


def test_it_streams(client: openai.OpenAI, speech: list[Clip]) -> None:
    messages: list[Any] = [{"role": "user", "content": [spoken(speech[0])]}]
    chunks = list(client.chat.completions.create(model="demo", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == speech[0].text
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len(chunks) > 3


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


AUDIO = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
REFUSED: dict[str, tuple[Any, str, str]] = {
    "list": ([], "body", "object"),
    "unknown": ({**user(AUDIO), "max_tokens": 5}, "max_tokens", "possible are"),
    "temperature": ({**user(AUDIO), "temperature": 0.7}, "temperature", "only 0"),
    "stream": ({**user(AUDIO), "stream": "yes"}, "stream", "true and false"),
    "model": ({**user(AUDIO), "model": 3}, "model", "name"),
    "no messages": ({}, "messages", "list"),
    "no object": ({"messages": ["hello"]}, "messages", "role and content"),
    "role": ({"messages": [{"role": "tool", "content": []}]}, "messages", "system and user"),
    "no audio": (user(), "messages", "0 pieces"),
    "two pieces": (user(AUDIO, AUDIO), "messages", "2 pieces"),
    "text": (user({"type": "text", "text": "Transcribe!"}, AUDIO), "messages", "system message"),
    "words alone": ({"messages": [{"role": "user", "content": "hello"}]}, "messages", "input_audio"),
    "context": ({"messages": [{"role": "system", "content": [AUDIO]}]}, "messages", "text"),
    "no base64": (user({"type": "input_audio", "input_audio": {"data": "?"}}), "messages", "base64"),
    "format": (user({"type": "input_audio", "input_audio": {"data": "", "format": "amr"}}), "messages", "'amr'"),
    "more": (user({"type": "input_audio", "input_audio": {"data": "", "speed": 2}}), "messages", "data"),
    "file": (user({"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}}), "messages", "http"),
    "broken": (user(AUDIO), "messages", "input_audio.wav"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(server: Served, name: str) -> None:
    body, param, words = REFUSED[name]
    answer = server.post(PATH, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


def test_bodies_that_are_no_json(server: Served) -> None:
    kind = {"Content-Type": "application/json"}
    twice, half = b'{"stream": true, "stream": false}', b'{"model": "\\ud800"}'
    for content in (b"{", b"\xff", b"[" * 100_000, b"[" + b"[]," * 200_000 + b"[]]", twice, half):
        answer = server.post(PATH, content=content, headers=kind)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")
    assert server.post(PATH, content=b"{}").status_code == 415


def test_what_is_too_large(transcriber: Transcriber) -> None:
    with served(transcriber, upload_max_mib=1) as server:
        answer = server.post(PATH, json={"messages": "x" * (1 << 20)})
    assert answer.status_code == 413
