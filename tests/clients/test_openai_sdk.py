"""OpenAI's SDK for Node. The one for Python is the client of most tests of the server."""

from pathlib import Path
from typing import Any

import pytest
from serving import Served

from .conftest import Recordings, Uses, run_node


@pytest.fixture(scope="module")
def uses(kit: Served, secure: tuple[Served, Path], recordings: Recordings) -> Uses:
    """What came of each."""
    other, authority = secure
    return run_node("openai_sdk.mjs", kit, recordings, other.url, NODE_EXTRA_CA_CERTS=authority)


@pytest.mark.parametrize("use", ["json", "newer_model", "webm", "m4a", "every_field"])
def test_a_file(uses: Uses, recordings: Recordings, use: str) -> None:
    assert uses[use]["text"] == recordings.english


def test_a_language(uses: Uses, recordings: Recordings) -> None:
    assert uses["language"]["text"] == recordings.forced


def test_a_prompt(uses: Uses, recordings: Recordings) -> None:
    assert uses["prompt"]["text"] == recordings.hotword


def test_verbose_json(uses: Uses, recordings: Recordings) -> None:
    answer = uses["verbose_json"]
    assert answer["text"] == recordings.talk
    spoken = [segment for segment in answer["segments"] if segment["no_speech_prob"] < 0.6]  # what many filter by
    assert_segments(spoken, answer)
    assert uses["verbose_json_in_a_language"]["language"] == "english"


def assert_segments(segments: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    """They hold all of the text, in order, within the recording."""
    assert len(segments) > 1
    assert squeezed("".join(segment["text"] for segment in segments)) == squeezed(answer["text"])
    times = [time for segment in segments for time in (segment["start"], segment["end"])]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= answer["duration"]


def squeezed(text: str) -> str:
    """Without the spaces that segments are joined by."""
    return "".join(text.split())


def test_text(uses: Uses, recordings: Recordings) -> None:
    assert uses["text"].strip() == recordings.english


@pytest.mark.parametrize(("form", "head", "point"), [("srt", ["1"], ","), ("vtt", ["WEBVTT", ""], ".")])
def test_subtitles(uses: Uses, recordings: Recordings, form: str, head: list[str], point: str) -> None:
    lines = uses[form].splitlines()
    assert lines[: len(head)] == head
    assert lines[len(head)].startswith(f"00:00:00{point}")
    assert " --> 00:00:0" in lines[len(head)]
    cues = [line for line in lines[len(head) :] if line and not line.isdecimal() and "-->" not in line]
    assert " ".join(cues) == recordings.english


@pytest.mark.parametrize("use", ["stream", "verbose_stream"])
def test_a_stream(uses: Uses, recordings: Recordings, use: str) -> None:
    *deltas, done = uses[use]
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 1
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"] == recordings.talk


def test_chat(uses: Uses, recordings: Recordings) -> None:
    answer = uses["chat"]
    assert answer["choices"][0]["message"]["content"] == recordings.english
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]


def test_chat_as_a_stream(uses: Uses, recordings: Recordings) -> None:
    *chunks, usage = uses["chat_stream"]
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(deltas) == recordings.english
    assert usage["choices"] == []  # as at OpenAI, where stream_options ask for it
    assert usage["usage"]["completion_tokens"] > 0


def test_models(uses: Uses) -> None:
    assert "demo" in [model["id"] for model in uses["models"]]


@pytest.mark.parametrize("use", ["realtime", "realtime_of_the_sdk"])
def test_realtime(uses: Uses, recordings: Recordings, use: str) -> None:
    turns = uses[use]
    assert tuple(turn["transcript"] for turn in turns) == recordings.turns
    assert all(turn["deltas"] == turn["transcript"] for turn in turns)


def test_what_is_wrong_is_told(uses: Uses) -> None:
    error = uses["refused"]
    assert (error["type"], error["status"], error["param"]) == ("BadRequestError", 400, "response_format")
    assert "verbose_json" in error["message"]
    assert (uses["wrong_key"]["type"], uses["wrong_key"]["status"]) == ("AuthenticationError", 401)
