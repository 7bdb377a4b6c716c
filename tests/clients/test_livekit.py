"""LiveKit's plugin for OpenAI: whole recordings, and streams over realtime sessions."""

from typing import Any

import pytest
from serving import Served

from .conftest import Recordings, Uses, run_python


@pytest.fixture(scope="module")
def uses(kit: Served, recordings: Recordings) -> Uses:
    """What came of each."""
    return run_python("livekit_plugin.py", kit, recordings)


@pytest.mark.parametrize("use", ["recognize", "whisper"])
def test_a_recording(uses: Uses, recordings: Recordings, use: str) -> None:
    assert uses[use] == {"text": recordings.english, "language": "en"}


def test_a_language(uses: Uses, recordings: Recordings) -> None:
    assert uses["language"] == {"text": recordings.forced, "language": "en"}


def test_a_language_that_is_detected(uses: Uses) -> None:
    assert uses["detected_language"]["language"] == "zh"


@pytest.mark.parametrize("use", ["prompt", "languages_and_keywords"])
def test_a_prompt(uses: Uses, recordings: Recordings, use: str) -> None:
    assert uses[use] == {"text": recordings.hotword, "language": "en"}


def finals(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The texts that hold, and their languages."""
    return [(event["text"], event["language"]) for event in events if event["type"] == "final_transcript"]


@pytest.mark.parametrize(
    "use",
    [
        "by_vad",
        "realtime",
        "realtime_with_options",
        "realtime_semantic",
        "realtime_by_keywords",
        "realtime_by_client",
        "realtime_updated",
    ],
)
def test_turns(uses: Uses, recordings: Recordings, use: str) -> None:
    assert finals(uses[use]) == [(text, "en") for text in recordings.turns]
    kinds = [event["type"] for event in uses[use]]
    assert kinds.count("start_of_speech") == kinds.count("end_of_speech") == 2
    if use == "realtime":
        assert any(
            event["type"] == "interim_transcript" and recordings.turns[0].startswith(event["text"])
            for event in uses[use]
        )
