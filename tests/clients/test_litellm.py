"""LiteLLM, whose proxy sends what its SDK does."""

import pytest
from serving import Served

from .conftest import Recordings, Uses, run_python
from .test_openai_sdk import assert_segments


@pytest.fixture(scope="module")
def uses(kit: Served, recordings: Recordings) -> Uses:
    """What came of each."""
    return run_python("litellm_sdk.py", kit, recordings)


@pytest.mark.parametrize("use", ["plain", "asynchronous", "mp3", "newer_model", "as_vllm", "as_any_server"])
def test_a_file(uses: Uses, recordings: Recordings, use: str) -> None:
    assert uses[use]["text"] == recordings.english


def test_a_language(uses: Uses, recordings: Recordings) -> None:
    assert uses["language"]["text"] == recordings.forced
    assert uses["language"]["language"] == "english"


def test_a_prompt(uses: Uses, recordings: Recordings) -> None:
    assert uses["prompt"]["text"] == recordings.hotword


def test_verbose_json(uses: Uses, recordings: Recordings) -> None:
    answer = uses["verbose_json"]
    assert answer["text"] == recordings.talk
    assert_segments(answer["segments"], answer)


def test_text_and_subtitles(uses: Uses, recordings: Recordings) -> None:
    assert uses["text"]["text"].strip() == recordings.english
    assert uses["srt"]["text"].startswith("1\n00:00:00,")
    assert "".join(uses["srt"]["text"].split()).endswith("".join(recordings.english.split()[-2:]))


def test_a_stream(uses: Uses, recordings: Recordings) -> None:
    *deltas, done = uses["stream"]
    assert len(deltas) > 1
    assert "".join(event["delta"] for event in deltas) == done["text"] == recordings.talk


def test_chat(uses: Uses, recordings: Recordings) -> None:
    answer = uses["chat"]
    assert answer["choices"][0]["message"]["content"] == recordings.english
    assert answer["usage"]["completion_tokens"] > 0


def test_chat_as_a_stream(uses: Uses, recordings: Recordings) -> None:
    chunks = uses["chat_stream"]
    deltas = [choice["delta"]["content"] or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(deltas) == recordings.english
    assert chunks[-1]["usage"]["completion_tokens"] > 0
