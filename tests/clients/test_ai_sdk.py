"""Vercel's AI SDK, which checks answers against a schema."""

import pytest
from serving import Served

from .conftest import Recordings, Uses, run_node
from .test_openai_sdk import squeezed


@pytest.fixture(scope="module")
def uses(kit: Served, recordings: Recordings) -> Uses:
    """What came of each."""
    return run_node("ai_sdk.mjs", kit, recordings)


@pytest.mark.parametrize("use", ["plain", "webm", "m4a", "newer_model", "gpt_transcribe", "server_vad"])
def test_a_file(uses: Uses, recordings: Recordings, use: str) -> None:
    assert uses[use]["text"] == recordings.english
    assert uses[use]["language"] == "en"
    assert uses[use]["durationInSeconds"] == pytest.approx(3.3, abs=0.1)


def test_a_language(uses: Uses, recordings: Recordings) -> None:
    assert uses["language"]["text"] == recordings.forced
    assert uses["language"]["language"] == "en"


def test_a_prompt(uses: Uses, recordings: Recordings) -> None:
    assert uses["prompt"]["text"] == recordings.hotword


def test_segment(uses: Uses, recordings: Recordings) -> None:
    answer = uses["segments"]
    assert len(answer["segments"]) > 1
    assert squeezed("".join(segment["text"] for segment in answer["segments"])) == squeezed(recordings.talk)
    assert all(segment["startSecond"] < segment["endSecond"] for segment in answer["segments"])


def test_speech_that_is_streamed(uses: Uses, recordings: Recordings) -> None:
    assert uses["stream"] == " ".join(recordings.turns)


def test_chat(uses: Uses, recordings: Recordings) -> None:
    assert uses["chat"] == recordings.english
    assert "".join(uses["chat_stream"]["deltas"]) == recordings.english
    assert uses["chat_stream"]["usage"]["outputTokens"] > 0
