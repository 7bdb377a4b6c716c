"""Audio in chat messages, as users of vLLM send it."""

import base64
import io
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import soxr
from attacks import helpers
from fronting import until
from serving import PATIENCE, Served, decoded, held, served

from runtime.demo import Clip
from runtime.server import uploads
from runtime.server.routes.chat_body import AUDIO_KEYS
from runtime.server.uploads import helper_limits
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
        assert answer.usage
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.usage.prompt_tokens_details
        audio = answer.usage.prompt_tokens_details.audio_tokens or 0
        assert abs(audio - 13 * answer.usage.to_dict()["seconds"]) <= 1 or not clip.language  # type: ignore[operator]


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
    "unknown": ({**user(AUDIO), "langauge": "en"}, "langauge", "possible are"),
    "temperature": ({**user(AUDIO), "temperature": -1}, "temperature", "0 to 2"),
    "stream": ({**user(AUDIO), "stream": "yes"}, "stream", "true and false"),
    "model": ({**user(AUDIO), "model": 3}, "model", "name"),
    "several answers": ({**user(AUDIO), "n": 2}, "n", "possible is 1"),
    "spoken answer": ({**user(AUDIO), "modalities": ["text", "audio"]}, "modalities", "nothing is spoken"),
    "voice": ({**user(AUDIO), "audio": {"voice": "ash", "format": "wav"}}, "audio", "nothing is spoken"),
    "schema": ({**user(AUDIO), "response_format": {"type": "json_object"}}, "response_format", "possible is text"),
    "tokens": ({**user(AUDIO), "max_tokens": 0}, "max_tokens", "1 or more"),
    "usage": ({**user(AUDIO), "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage", "true"),
    "options": ({**user(AUDIO), "asr_options": "zh"}, "asr_options", "object"),
    "language": ({**user(AUDIO), "asr_options": {"language": "Klingon"}}, "asr_options.language", "no language"),
    "option": ({**user(AUDIO), "asr_options": {"translate": True}}, "asr_options.translate", "possible are"),
    "no messages": ({}, "messages", "list"),
    "no object": ({"messages": ["hello"]}, "messages", "role and content"),
    "role": ({"messages": [{"role": "tool", "content": []}]}, "messages", "system, user and assistant"),
    "no audio": (user(), "messages", "0 pieces"),
    "two pieces": (user(AUDIO, AUDIO), "messages", "2 pieces"),
    "words alone": ({"messages": [{"role": "user", "content": "hello"}]}, "messages", "input_audio"),
    "picture": (user({"type": "image_url", "image_url": {"url": "x"}}, AUDIO), "messages", "'image_url'"),
    "context": ({"messages": [{"role": "system", "content": [AUDIO]}]}, "messages", "text"),
    "no base64": (user({"type": "input_audio", "input_audio": {"data": "?"}}), "messages", "base64"),
    "format": (user({"type": "input_audio", "input_audio": {"data": "x", "format": "pcm16"}}), "messages", "'pcm16'"),
    "no data": (user({"type": "input_audio", "input_audio": {"data": ""}}), "messages", "data"),
    "data URL": (user({"type": "input_audio", "input_audio": {"data": "data:audio/wav,x"}}), "messages", "base64"),
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


TAKEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "limits": ({"max_tokens": 256, "max_completion_tokens": 300}, []),
    "one answer": ({"n": 1, "modalities": ["text"], "response_format": {"type": "text"}}, []),
    "nulls": ({"temperature": None, "stop": None, "max_tokens": None, "tools": [], "store": False}, []),
    "sampling": ({"temperature": 0.01, "top_p": 1, "seed": 1}, ["seed", "temperature", "top_p"]),
    "callers": ({"user": "me", "metadata": {"a": "b"}}, ["metadata", "user"]),
    "vLLM's": ({"repetition_penalty": 1.1, "skip_special_tokens": False, "top_k": 1}, ["repetition_penalty", "top_k"]),
    "Alibaba's": ({"asr_options": {"language": "en", "enable_itn": False, "enable_lid": True}}, ["asr_options.enable"]),
    "stop": ({"stop": ["."]}, ["stop"]),
    "no model": ({"model": ""}, []),
    "usage as it goes": ({"stream_options": {"continuous_usage_stats": True}}, ["stream_options.continuous"]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_has_no_effect_is_taken_and_said(server: Served, speech: list[Clip], name: str) -> None:
    fields, expected = TAKEN[name]
    answer = server.post(PATH, json={**user(spoken(speech[0])), **fields})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == speech[0].text
    warnings = sorted(answer.json().get("warnings", []))
    assert len(warnings) == len(expected), warnings
    assert all(warning.startswith(start) for warning, start in zip(warnings, expected, strict=True)), warnings
    assert ("x-asr-warnings" in answer.headers) == bool(expected)


@pytest.mark.parametrize("form", ["WAV", "audio/wav", "weba", "", None])
def test_a_format_only_names_the_file(server: Served, speech: list[Clip], form: str | None) -> None:
    part = {"type": "input_audio", "input_audio": {"data": encoded(speech[0]), "format": form}}
    answer = server.post(PATH, json=user(part))
    assert answer.json()["choices"][0]["message"]["content"] == speech[0].text


def test_text_beside_the_audio_is_not_read_as_in_the_models_template(server: Served, speech: list[Clip]) -> None:
    before = {"role": "assistant", "content": "How can I help?"}
    body = user({"type": "text", "text": "Transcribe this."}, spoken(speech[0]))
    answer = server.post(PATH, json={"messages": [before, *body["messages"]]}).json()
    assert answer["choices"][0]["message"]["content"] == speech[0].text
    assert len(answer["warnings"]) == 2
    assert all("does not read the text" in warning for warning in answer["warnings"])


def test_alibabas_requests_and_answers(client: openai.OpenAI, speech: list[Clip]) -> None:
    clip = next(clip for clip in speech if clip.language == "Chinese")
    url = f"data:audio/wav;base64,{encoded(clip)}"
    messages: list[Any] = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": url}}]}]
    answer = client.chat.completions.create(
        model="qwen3-asr", messages=messages, extra_body={"asr_options": {"language": "zh", "enable_itn": False}}
    )
    assert answer.choices[0].message.content == clip.text
    assert answer.to_dict()["languages"] == [{"code": "zh"}]
    chunks = list(
        client.chat.completions.create(
            model="qwen3-asr", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens > 0


def test_the_answer_is_cut_at_the_most_tokens_and_says_so(client: openai.OpenAI, speech: list[Clip]) -> None:
    messages: list[Any] = [{"role": "user", "content": [spoken(speech[0])]}]
    answer = client.chat.completions.create(model="demo", messages=messages, max_tokens=6, max_completion_tokens=9)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage
    assert answer.usage.completion_tokens == 6


@pytest.fixture(scope="module")
def large(speech: list[Clip]) -> tuple[str, str]:
    """A clip that takes 800 KB in base64, and its text."""
    samples, rate = soundfile.read(speech[0].path)
    stereo = np.stack([soxr.resample(samples, rate, 48_000)] * 2, axis=1)
    wav = io.BytesIO()
    soundfile.write(wav, stereo, 48_000, format="wav")
    return base64.b64encode(wav.getvalue()).decode(), speech[0].text


def said(data: str, kind: str = "input_audio") -> dict[str, Any]:
    """A body whose audio is given as it is."""
    part = {"type": kind, kind: {AUDIO_KEYS[kind]: data}}
    return {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    "written",
    [
        lambda data: json.dumps(said(data)),
        lambda data: json.dumps(said(f"data:audio/wav;base64,{data}", "audio_url")),
        lambda data: json.dumps(said(f"data:audio/wav;base64,{data}")).replace("/", "\\/"),  # as PHP does
        lambda data: json.dumps(said(data)).replace("+", "\\u002B"),  # as .NET does
        lambda data: json.dumps(said(data), indent=2, ensure_ascii=False),
    ],
    ids=["data", "data url", "escaped slashes", "escaped plus", "indented"],
)
def test_large_audio_is_heard_however_it_is_written(
    server: Served, large: tuple[str, str], written: Callable[[str], str]
) -> None:
    data, text = large
    answer = server.post(PATH, content=written(data).encode(), headers={"Content-Type": "application/json"})
    assert answer.json()["choices"][0]["message"]["content"] == text


LARGE_AND_WRONG: dict[str, tuple[Callable[[str], Any], str]] = {
    "a letter that is none": (lambda data: said(f"{data[:700_000]}!{data[700_000:]}"), "messages: is no base64"),
    "padding within": (lambda data: said(f"{data}=QUJD"), "messages: is no base64"),
    "an escape that is none": (
        lambda data: json.dumps(said(data)).replace("U", "\\U", 1).encode(),
        "messages: is no base64",
    ),
    "two pieces": (
        lambda data: {"messages": said(data)["messages"] + said(data)["messages"]},
        "messages: hold 2 pieces of audio, expected 1",
    ),
    "no data URL": (lambda data: said(f"data:audio/wav,{data}"), "messages: input_audio: expected a data URL"),
    "no URL": (lambda data: said(data, "audio_url"), "messages: audio_url: expected an http, https or base64"),
    "a long URL": (lambda data: said(f"http://{data}", "audio_url"), "messages: hold a URL of"),
    "a long text": (lambda data: said("AAAA") | {"user": data}, "the body holds a text of"),
    "much else": (lambda _: said("AAAA") | {"metadata": ["x"] * 90_000}, "the body holds more than 262144 bytes"),
    "an end too early": (lambda data: json.dumps(said(data)).encode()[:-4], "the body is no JSON"),
    "no end": (lambda data: json.dumps(said(data)).encode()[:700_000], "the body "),
    "another field": (lambda data: said(data) | {"tempo": 1}, "tempo: is not known here"),
}


@pytest.mark.parametrize("name", LARGE_AND_WRONG)
def test_large_bodies_are_refused_by_name(server: Served, large: tuple[str, str], name: str) -> None:
    made, fault = LARGE_AND_WRONG[name]
    body = made(large[0])
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = server.post(PATH, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(fault)
    assert server.service.spool.used == 0


def test_a_large_body_is_read_no_further_when_its_client_hangs_up(
    server: Served, large: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps(said(large[0])).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    assert server.post(PATH, content=body, headers={"Content-Type": "application/json"}).status_code == 200
    monkeypatch.setattr(uploads, "helper_limits", lambda size: replace(helper_limits(size), seconds=3600))
    idle = helpers()
    for helper in idle:
        helper.suspend()
    try:
        with socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as connection:
            connection.sendall(head.encode() + body)
            until(lambda: any(helper.nice() > 0 for helper in idle))  # it works on it, and is in no haste
            (reader,) = [helper for helper in idle if helper.nice() > 0]
        until(lambda: not reader.is_running())
    finally:
        for helper in helpers():
            helper.resume()
    until(lambda: not server.server_state.accepted)
    assert server.service.spool.used == 0


def test_decoded_audio_takes_no_more_room_than_it_has(transcriber: Transcriber, large: tuple[str, str]) -> None:
    still, engine = held(transcriber)
    with served(still) as server, ThreadPoolExecutor() as pool:
        answer = pool.submit(server.post, PATH, json=said(large[0]))
        decoding = engine.next()
        assert server.service.spool.used == len(base64.b64decode(large[0]))
        decoding.tell(decoded("hello"))
        assert answer.result(PATIENCE).status_code == 200


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
