"""Words are told once they are certain, and joined they are the transcript."""

import pytest

from runtime.model.prompt import ASR_TEXT
from runtime.server.realtime.local_agreement import PartialTranscript, common_prefix

ENGLISH = f"language English{ASR_TEXT}"


@pytest.mark.parametrize(
    ("before", "now", "language", "common"),
    [
        ("station train thir", "station train thirty", "English", "station train"),
        ("station tray thirty", "station train thirty", "English", "station"),
        ("one ten", "one tennis court", "English", "one"),
        ("How are you.", "How are you doing", "English", "How are"),
        ("太阳七", "太阳七百五万", "Chinese", "太阳"),
        ("你好。", "你好。", "Chinese", "你好"),
        ("one", "one", "English", ""),
        ("", "one", "English", ""),
    ],
)
def test_what_two_hypotheses_have_in_common(before: str, now: str, language: str, common: str) -> None:
    assert common_prefix(before, now, language) == common


def test_words_are_told_once_and_continued() -> None:
    words = PartialTranscript(None)
    assert words.update(f"{ENGLISH}station tray thir", samples=1) == ""
    assert words.prompt_prefix == ""
    assert words.update(f"{ENGLISH}station train thirty", samples=2) == "station"
    assert (words.prompt_prefix, words.confirmed_samples) == (f"{ENGLISH}station", 1)
    assert words.update(" train thirty three", samples=3) == " train"
    assert words.finish_segment(" thirty three purple") == " thirty three purple"
    assert words.prompt_prefix == ""
    assert words.update(f"{ENGLISH}bread", samples=1) == ""
    assert words.finish_segment(f"{ENGLISH}bread chicken") == " bread chicken"
    assert words.transcript.text == "station train thirty three purple bread chicken"
    assert words.transcript.languages == ("English",)


def test_a_forced_language_is_in_the_prompt_already() -> None:
    words = PartialTranscript("Chinese")
    words.update("太阳七", samples=1)
    assert words.update("太阳七百", samples=2) == "太阳"
    assert words.prompt_prefix == "太阳"
    assert words.finish_segment("七百五万") == "七百五万"
    assert words.transcript.text == "太阳七百五万"


def test_nothing_is_told_while_hypotheses_differ_in_language() -> None:
    words = PartialTranscript(None)
    words.update(f"{ENGLISH}wan ba", samples=1)
    assert words.update(f"language Chinese{ASR_TEXT}wan ba", samples=2) == ""
    assert words.update(f"language None{ASR_TEXT}", samples=3) == ""


def test_what_was_told_stays_where_the_model_runs_in_circles() -> None:
    words = PartialTranscript("Chinese")
    circles = "啊" * 15
    words.update(circles, samples=1)
    told = words.update(circles, samples=2)
    assert told == circles[:-1]
    assert words.finish_segment(circles) == ""
    assert words.transcript.text == told
    assert words.transcript.repeated == 28
