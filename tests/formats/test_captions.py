"""Captions: when somebody speaks, short enough to be read, broken where the text is."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.audio import SAMPLE_RATE, Audio, voice_activity
from runtime.demo import Clip
from runtime.formats.captions import MAX_CAPTION_SECONDS, MIN_CAPTION_SECONDS, MOST_COLUMNS, Caption, captions
from runtime.transcriber import Request, Transcriber
from runtime.transcript import Hypothesis, Segment, Span, Transcript, join_texts

NEAR = 0.25  # seconds: what is soft at the end of a word is speech, too

TALK = (
    "Good morning, everyone, and thank you for coming. Today we look at three things: how the new depot works, "
    "what it costs, and who will run it. Any questions so far?"
)
CHINESE = (
    "各位早上好，感谢大家的到来。今天我们讨论三件事：新的仓库如何运作，需要多少费用，以及由谁来管理。大家还有问题吗？"
)


def spread(text: str, *speech: tuple[float, float], end: float = 60.0) -> list[Caption]:
    """The captions of one segment, from 0 to `end`, in which somebody speaks now and then."""
    segment = Segment(0, end, Hypothesis("English", text), speech=tuple(Span(*span) for span in speech))
    return captions(Transcript("talk.wav", end, (segment,)))


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def times(found: list[Caption]) -> list[tuple[float, float]]:
    return [(round(caption.start, 2), round(caption.end, 2)) for caption in found]


def test_a_caption_lasts_as_long_as_the_speech() -> None:
    (only,) = spread("bread chicken", (12.0, 14.35))
    assert (only.start, only.end, only.text, only.is_estimated) == (12.0, 14.35, "bread chicken", False)


def test_without_a_voice_it_lasts_as_long_as_the_segment() -> None:
    (only,) = spread("la la la", end=5.0)
    assert times([only]) == [(0, 5)]
    assert only.is_estimated


@pytest.mark.parametrize("text", [TALK, CHINESE])
def test_long_speech_is_cut_at_stops_into_two_lines_and_seven_seconds(text: str) -> None:
    found = spread(text, (1.0, 21.0))
    assert len(found) >= 3
    assert "".join("".join(c.text for c in found).split()) == "".join(text.split())
    assert (found[0].start, found[-1].end) == (1.0, 21.0)
    for caption in found:
        assert len(caption.lines) <= 2
        assert all(columns(line) <= MOST_COLUMNS for line in caption.lines)
        assert caption.end - caption.start <= MAX_CAPTION_SECONDS
        assert caption.text[-1] in ".,:?，。：？"
        assert caption.is_estimated


def test_captions_part_where_a_pause_does() -> None:
    found = spread("One two three. Four five six.", (2.0, 4.0), (9.0, 11.0))
    assert times(found) == [(2, 4), (9, 11)]
    assert [caption.text for caption in found] == ["One two three.", "Four five six."]


@pytest.mark.parametrize(("first", "second"), [(2.35, 5.35), (1.6, 6.5), (3.0, 4.0)])
def test_two_languages_are_never_in_one_caption_when_a_pause_parts_them(first: float, second: float) -> None:
    found = spread("bread chicken万爸爸孩子蓝色绿色", (7.0, 7.0 + first), (16.0, 16.0 + second))
    assert [caption.text for caption in found] == ["bread chicken", "万爸爸孩子蓝色绿色"]
    assert [caption.start for caption in found] == [7.0, 16.0]


@pytest.mark.parametrize("text", ["Привет. Hello.", "안녕하세요. Hello.", "مرحبا. Hello.", "Thank you. 감사합니다."])
def test_scripts_with_spaces_part_likewise(text: str) -> None:
    found = spread(text, (1.0, 1.8), (2.5, 3.3))
    assert [caption.text for caption in found] == text.replace(". ", ".|").split("|")


def test_a_short_answer_with_room_stands_alone() -> None:
    found = spread("I think that this is fine. Yes.", (0.0, 3.0), (3.9, 4.3))
    assert times(found) == [(0, 3), (3.9, 4.9)]


def test_a_word_of_another_script_stays_in_its_sentence() -> None:
    (only,) = spread("我用iPhone打电话", (1.0, 3.0))
    assert only.lines == ("我用iPhone打电话",)


def test_a_short_caption_stays_for_a_second_where_there_is_room() -> None:
    found = spread("Yes. No. Perhaps we should.", (1.0, 1.3), (2.8, 3.0), (5.0, 7.0))
    assert times(found) == [(1, 2), (2.8, 3.8), (5, 7)]
    last = spread("Yes.", (9.6, 9.8), end=10.0)
    assert times(last) == [(9.6, 10)]


def test_words_that_would_flicker_go_together() -> None:
    found = spread("Yes, yes, of course we do.", (1.0, 1.3), (1.9, 2.1), (2.7, 4.0))
    assert [caption.text for caption in found] == ["Yes, yes,", "of course we do."]
    assert times(found) == [(1, 2.1), (2.7, 4)]


def test_speech_of_a_few_words_lasts_seven_seconds_at_most() -> None:
    (only,) = spread("Well…", (2.0, 30.0))
    assert times([only]) == [(2, 9)]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200,
        "https://example.org/" + "x/" * 80,
        "ก" * 130,
        "好" * 100,
        "." * 99,
        "a" + "가" * 60,
        "x" * 41 + "가나",
    ],
)
def test_what_has_no_spaces_fits_too(text: str) -> None:
    found = spread(text, (0.0, 40.0))
    assert all(columns(line) <= MOST_COLUMNS for caption in found for line in caption.lines)
    assert "".join("".join(caption.lines) for caption in found) == text


def test_the_longest_text_over_the_shortest_speech_takes_no_time_to_speak_of() -> None:
    """8,192 tokens of a model that invents something over music: every limit holds."""
    found = spread("好，的吗啊" * 3000, (0.0, 1.0), end=30.0)
    assert len(found) > 300
    assert all(columns(line) <= MOST_COLUMNS for caption in found for line in caption.lines)


def test_blank_lines_cannot_end_a_cue() -> None:
    (only,) = spread("one\n\ntwo", (1.0, 3.0))
    assert only.lines == ("one two",)


words = st.text("ab .,!?好的。，กか12\u0301\n", max_size=120)
spans = st.lists(st.floats(0.05, 9), min_size=0, max_size=12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(words, spans), min_size=1, max_size=4))
def test_any_text_over_any_speech(talk: list[tuple[str, list[float]]]) -> None:
    segments, at = [], 0.0
    for text, lengths in talk:
        bounds = list(itertools.accumulate(lengths, initial=at))
        speech = tuple(Span(*pair) for pair in itertools.pairwise(bounds))[::2]
        segments.append(Segment(at, bounds[-1] + 1, Hypothesis("English", text.strip()), speech=speech))
        at = bounds[-1] + 1
    found = captions(Transcript("talk.wav", at, tuple(segments)))
    told, expected = "".join(caption.text for caption in found), "".join(text for text, _ in talk)
    assert "".join(told.split()) == "".join(expected.split())
    for caption in found:
        assert caption.text
        assert 0 <= caption.end - caption.start <= MAX_CAPTION_SECONDS + 1e-9
        assert len(caption.lines) <= 2
        assert all(columns(line) - line.count("\u0301") <= MOST_COLUMNS for line in caption.lines)
    for before, after in itertools.pairwise(found):
        assert before.end <= after.start


def test_speech_in_a_recording_is_found_with_its_tokens(transcriber: Transcriber, speech: list[Clip]) -> None:
    """Three clips without noise, with silence around them: a caption for each, when it is heard."""
    clear = [clip for clip in speech if clip.path.stem in ("english-1", "english-2", "chinese-1")]
    quiet = np.zeros(4 * SAMPLE_RATE, dtype=np.float32)
    pieces, spoken = [quiet], []
    for clip in clear:
        samples = transcriber.prepare(Request(clip.path)).audio.samples
        loud = np.flatnonzero(np.abs(samples) > 0.05 * np.abs(samples).max())
        before = sum(map(len, pieces))
        spoken.append(((before + loud[0]) / SAMPLE_RATE, (before + loud[-1]) / SAMPLE_RATE))
        pieces += [samples, quiet]
    recording = Audio(np.concatenate(pieces), "talk")
    (heard,) = transcriber.transcribe_all([Request(recording, timed=True)])
    assert isinstance(heard, Transcript)
    found = captions(heard)
    assert join_texts(caption.text for caption in found) == heard.text
    for caption, (start, end) in zip(found, spoken, strict=True):
        assert abs(caption.start - start) < NEAR
        assert abs(caption.end - end) < NEAR
        assert transcriber.tokenizer.text(caption.tokens).strip() == caption.text
        assert caption.end - caption.start > MIN_CAPTION_SECONDS


def test_speech_that_is_cut_off_anywhere_has_an_end(transcriber: Transcriber, speech: list[Clip]) -> None:
    samples = transcriber.prepare(Request(speech[0].path)).audio.samples
    for length in range(SAMPLE_RATE // 4, len(samples), SAMPLE_RATE // 4):
        for start, end in voice_activity.speech(samples[:length]):
            assert 0 <= start < end <= length
