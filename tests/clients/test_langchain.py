"""LangChain: the parsers of langchain-community and the chat model of langchain-openai."""

import pytest
from serving import Served

from .conftest import Recordings, Uses, run_python


@pytest.fixture(scope="module")
def uses(kit: Served, recordings: Recordings) -> Uses:
    """What came of each."""
    return run_python("langchain_parsers.py", kit, recordings)


@pytest.mark.parametrize("use", ["parser", "loader"])
def test_a_file(uses: Uses, recordings: Recordings, use: str) -> None:
    assert uses[use] == [recordings.english]


def test_a_language(uses: Uses, recordings: Recordings) -> None:
    assert uses["parser_in_a_language"] == [recordings.forced]


def test_subtitles(uses: Uses, recordings: Recordings) -> None:
    (subtitles,) = uses["parser_of_subtitles"]
    assert subtitles.startswith("1\n00:00:00,")
    assert subtitles.split()[-1] == recordings.english.split()[-1]


@pytest.mark.parametrize("use", ["chat", "chat_with_options"])
def test_chat(uses: Uses, recordings: Recordings, use: str) -> None:
    assert uses[use]["content"] == recordings.english
    assert uses[use]["usage_metadata"]["output_tokens"] > 0


def test_chat_as_a_stream(uses: Uses, recordings: Recordings) -> None:
    chunks = uses["chat_stream"]
    assert "".join(chunk["content"] for chunk in chunks) == recordings.english
    assert sum((chunk["usage_metadata"] or {}).get("output_tokens", 0) for chunk in chunks) > 0
