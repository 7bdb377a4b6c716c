"""Figures of a run: what is counted where, against arithmetic done another way, and how sure they are."""

import jiwer
import numpy as np
import pytest

from runtime.measure.accuracy.dataset import DataSet, Item
from runtime.measure.accuracy.journal import UtteranceOutcome
from runtime.measure.accuracy.published import published
from runtime.measure.accuracy.run import picked
from runtime.measure.accuracy.score import AccuracyScore, Rate, compared, scored

# What is said, in which language, by whom, how long; and what was heard, in which language.
UTTERANCES = (
    ("one two three four", "English", "ann", 4.0, "one two tree four", "English"),
    ("five six", "English", "bob", 7.0, "five six seven", "English"),
    ("seven eight nine", "English", "ann", 40.0, "seven nine", "Chinese"),
    ("今天天气很好", "Chinese", "cao", 3.0, "今天天汽很好", "Chinese"),
    ("你好", "Chinese", "cao", 90.0, "你好", "Chinese"),
    ("", None, "", 2.0, "", None),
    ("", None, "", 2.0, "uh", "English"),
)


def score(
    rows: tuple[tuple[str, str | None, str, float, str, str | None], ...], **options: bool | int
) -> AccuracyScore:
    """The score of such rows, compared as they are."""
    items = [Item(str(number), b"", row[0], row[1], row[2]) for number, row in enumerate(rows)]
    outcomes = {str(number): UtteranceOutcome(str(number), row[4], row[5], row[3]) for number, row in enumerate(rows)}
    return scored(compared(items, outcomes, plain=True), **options)  # type: ignore[arg-type]


def named(rates: tuple[Rate, ...]) -> dict[tuple[str, str], Rate]:
    return {(rate.name, rate.unit): rate for rate in rates}


def test_words_and_characters_are_never_added() -> None:
    found = score(UTTERANCES)
    words, characters = found.overall
    english = [row for row in UTTERANCES if row[1] == "English"]
    chinese = [row for row in UTTERANCES if row[1] == "Chinese"]
    assert words.rate == pytest.approx(jiwer.wer([row[0] for row in english], [row[4] for row in english]))
    assert characters.rate == pytest.approx(jiwer.cer([row[0] for row in chinese], [row[4] for row in chinese]))
    assert (words.unit, words.utterances, words.length, words.exact) == ("words", 3, 9, 0)
    assert (words.substitutions, words.deletions, words.insertions) == (1, 1, 1)
    assert (characters.unit, characters.utterances, characters.length, characters.exact) == ("characters", 2, 8, 1)
    assert named(found.languages) == {
        ("English", "words"): Rate(**{**vars(words), "name": "English"}),
        ("Chinese", "characters"): Rate(**{**vars(characters), "name": "Chinese"}),
    }


def test_by_length_and_by_speaker() -> None:
    found = score(UTTERANCES)
    lengths = {
        key: (rate.utterances, rate.substitutions, rate.insertions) for key, rate in named(found.lengths).items()
    }
    assert lengths == {
        ("0", "words"): (1, 1, 0),
        ("0", "characters"): (1, 1, 0),
        ("5", "words"): (1, 0, 1),
        ("30", "words"): (1, 0, 0),
        ("60", "characters"): (1, 0, 0),
    }
    speakers = {name: rate.rate for (name, _), rate in named(found.speakers).items()}
    assert speakers == {"ann": 2 / 7, "bob": 1 / 2, "cao": 1 / 8}


def test_silence_is_counted_apart() -> None:
    found = score(UTTERANCES)
    assert (found.silences, found.silent) == (2, 1)
    assert [bad.text for bad in score(UTTERANCES[-1:], worst=5).worst] == ["uh"]


def test_languages_are_told_apart() -> None:
    found = score(UTTERANCES).identified
    assert found is not None
    assert (found.utterances, found.right) == (5, 4)
    assert set(found.confusion) == {("English", "English", 2), ("English", "Chinese", 1), ("Chinese", "Chinese", 2)}
    assert score(UTTERANCES, forced=True).identified is None


def test_failures_flatter_no_rate() -> None:
    items = [Item("good", b"", "one two", "English"), Item("bad", b"", "three four five", "English")]
    outcomes = {
        "good": UtteranceOutcome("good", "one", "English", 2.0),
        "bad": UtteranceOutcome("bad", failure="bad.wav: is empty"),
    }
    (rate,) = scored(compared(items, outcomes, plain=True)).overall
    assert (rate.utterances, rate.failed, rate.length) == (2, 1, 2)
    assert rate.rate == pytest.approx(1 / 2)
    assert rate.with_failed == pytest.approx(4 / 5)
    (all_failed,) = scored(compared(items, {"bad": outcomes["bad"]}, plain=True)).overall
    assert (all_failed.rate, all_failed.with_failed) == (None, 1.0)


def test_the_worst_have_the_most_errors() -> None:
    rows = (
        ("a b c d e f g h", "English", "", 1.0, "a b c d e x y z", "English"),
        ("a b c d", "English", "", 1.0, "a b x y", "English"),
        ("a", "English", "", 1.0, "x y", "English"),
        ("a b", "English", "", 1.0, "a b", "English"),
    )
    worst = score(rows, worst=10).worst
    assert [(bad.name, bad.errors) for bad in worst] == [("0", 3), ("2", 2), ("1", 2)]
    assert len(score(rows, worst=1).worst) == 1


def drawn(speakers: int, each: int, *, told: bool) -> Rate:
    """Utterances of ten words by speakers, half of whom are never understood."""
    said = "a b c d e f g h i j"
    rows = tuple(
        (said, "English", f"s{speaker}" if told else "", 1.0, said if speaker % 2 else "x " * 10, "English")
        for speaker in range(speakers)
        for _ in range(each)
    )
    (rate,) = score(rows).overall
    return rate


def test_the_interval_is_that_of_the_sample() -> None:
    """Of independent utterances, half of them wrong, it is the binomial's: ± 1.96 √(p (1 - p) / n)."""
    rate = drawn(400, 1, told=False)
    half = 1.96 * np.sqrt(0.25 / 400)
    assert rate.resampled == "utterances"
    assert rate.low == pytest.approx(0.5 - half, abs=0.01)
    assert rate.high == pytest.approx(0.5 + half, abs=0.01)
    assert drawn(400, 1, told=False) == rate  # the same outcomes, the same interval


def test_utterances_of_one_speaker_are_no_independent_evidence() -> None:
    apart, together = drawn(40, 10, told=False), drawn(40, 10, told=True)
    assert apart.rate == together.rate == 0.5
    assert together.resampled == "speakers"
    assert None not in (apart.low, apart.high, together.low, together.high)
    assert (together.high - together.low) > 2 * (apart.high - apart.low)  # type: ignore[operator]
    assert drawn(4, 10, told=True).resampled == "utterances"  # too few to draw from


def test_no_error_has_no_interval() -> None:
    (rate,) = score(UTTERANCES[4:5] * 3).overall
    assert (rate.rate, rate.low, rate.high) == (0.0, None, None)


def test_a_part_is_spread_over_the_whole() -> None:
    items = [Item(str(number), b"", "") for number in range(10)]
    assert [item.name for item in picked(items, 4)] == ["0", "2", "5", "7"]
    assert picked(items, 0) == picked(items, 10) == picked(items, 99) == tuple(items)


@pytest.mark.parametrize(
    ("layout", "name", "language", "rates"),
    [
        ("librispeech", "LibriSpeech test-other", "English", [0.0338, 0.0455, 0.035]),
        ("librispeech", "LibriSpeech dev-clean", "English", [0.035]),
        ("aishell", "AISHELL-1 test", "Chinese", []),
        ("manifest", "test-clean", "English", []),
    ],
)
def test_published_figures_stand_beside_the_set_they_are_of(
    layout: str, name: str, language: str, rates: list[float]
) -> None:
    found = published(DataSet(name, layout, "", (Item("a", b"", "a", language),)))
    assert [each.rate for each in found] == rates
    assert all(each.source for each in found)
