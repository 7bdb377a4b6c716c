"""From raw output to language and text."""

import pytest

from runtime.transcript import Hypothesis, Segment, Transcript, parse, parse_partial


@pytest.mark.parametrize(
    ("raw", "language", "text"),
    [
        ("language English<asr_text>Mm. Oh, yeah.", "English", "Mm. Oh, yeah."),
        ("language Chinese<asr_text>甚至出现交易几乎停滞的情况。", "Chinese", "甚至出现交易几乎停滞的情况。"),
        ("language Chinese\nsomething else\n<asr_text> 你好 ", "Chinese", "你好"),
        ("LANGUAGE cHINese<asr_text>你好", "Chinese", "你好"),
        ("language None<asr_text>", None, ""),
        ("language None<asr_text>mumbling", None, "mumbling"),
        ("no tag at all", None, "no tag at all"),
        ("<asr_text>text alone", None, "text alone"),
        ("", None, ""),
    ],
)
def test_raw_output(raw: str, language: str | None, text: str) -> None:
    assert parse(raw) == Hypothesis(language, text)


ENGLISH = "language English<asr_text>"


@pytest.mark.parametrize(
    ("raw", "forced", "language", "text"),
    [
        # The model begins anew: the texts are joined, and the language is the first one's.
        (f"{ENGLISH}hello world{ENGLISH}again", None, "English", "hello world again"),
        (f"{ENGLISH}hello language Chinese<asr_text>你好", None, "English", "hello你好"),
        ("你好language Chinese<asr_text>再见", "Chinese", "Chinese", "你好再见"),
        (f"Hello.{ENGLISH}there", None, "English", "Hello. there"),
        (f"{ENGLISH}language Chinese<asr_text>你好", None, "Chinese", "你好"),
        (ENGLISH * 5, None, "English", ""),
        # The tag is missing, or the header, or a part of either.
        (f"{ENGLISH}thirtylanguage English tenlanguage Englishsara", None, "English", "thirty ten sara"),
        ("你好language Chinese再见", "Chinese", "Chinese", "你好再见"),
        ("thirtylanguage Eng", "English", "English", "thirty"),
        ("language English", None, "English", ""),
        ("language English hello", None, "English", "hello"),
        ("language None", None, None, ""),
        ("language", None, None, ""),
        ("language Eng", None, None, ""),
        ("hello.language English", "English", "English", "hello."),
        ("你好language Chinese", "Chinese", "Chinese", "你好"),
        (f"{ENGLISH}hello\nlanguage None", None, "English", "hello"),
        (f"{ENGLISH}hello.language", None, "English", "hello."),
        ("hello<asr_text>you", "English", "English", "hello you"),
        ("hello<asr_te", "English", "English", "hello"),
    ],
)
def test_what_the_model_writes_of_its_own_is_no_text(raw: str, forced: str | None, language: str, text: str) -> None:
    assert parse(raw, forced=forced) == Hypothesis(language, text)


@pytest.mark.parametrize(
    "said",
    [
        *("I study language English", "language English is what I speak", "body language", "language is hard"),
        *(
            "the language Chinese, and language English.",
            "我学习language",
            "a < b",
            "sign language None",
            "a metalanguage",
            'he said: "language English"',
        ),
    ],
)
@pytest.mark.parametrize("forced", [None, "English"])
def test_what_somebody_says_stays(said: str, forced: str | None) -> None:
    assert parse(said if forced else ENGLISH + said, forced=forced) == Hypothesis("English", said)


@pytest.mark.parametrize("said", ["", "body language English", "hello world, all well"])
def test_text_that_grows_never_shows_the_models_own_words(said: str) -> None:
    raw = f"{ENGLISH}{said}{ENGLISH}again <asr_text>and again language Chinese"
    whole = parse(raw).text
    for length in range(len(ENGLISH), len(raw)):
        growing = parse_partial(raw[:length])
        assert whole.startswith(growing), raw[:length]
    assert whole.startswith(said)


def test_with_a_forced_language_all_is_text() -> None:
    assert parse("hello", forced="English") == Hypothesis("English", "hello")
    assert parse("", forced="English") == Hypothesis(None, "")


@pytest.mark.parametrize(
    ("text", "kept"), [("ha" * 30, "ha"), ("好" * 21, "好"), ("so it goes, " * 25 + "end", "so it goes, end")]
)
def test_endless_repetition_is_collapsed_and_counted(text: str, kept: str) -> None:
    hypothesis = parse(f"language English<asr_text>{text}")
    assert hypothesis.text == kept
    assert hypothesis.repeated == len(text) - len(kept)


def test_white_space_without_end_is_read_in_a_moment() -> None:
    assert parse(ENGLISH + (" " * 16 + "\n") * 4000 + "x") == Hypothesis("English", "x")
    assert parse_partial(ENGLISH + " " * 64_000 + "x") == "x"


def test_ordinary_repetition_stays() -> None:
    text = "no no no no, 哈哈哈哈哈 " + "very " * 10
    assert parse(f"language English<asr_text>{text}") == Hypothesis("English", text.strip())


def transcript(*texts: tuple[str | None, str]) -> Transcript:
    parts = [Segment(k, k + 1, Hypothesis(language, text), (1, 2), k == 1) for k, (language, text) in enumerate(texts)]
    return Transcript("talk.wav", float(len(parts)), tuple(parts))


def test_segments_are_joined_as_their_script_wants() -> None:
    assert transcript(("English", "one two"), ("English", "three")).text == "one two three"
    assert transcript(("Chinese", "你好"), ("Chinese", "再见。"), ("Chinese", "好")).text == "你好再见。好"
    assert transcript(("Korean", "안녕"), ("Korean", "하세요")).text == "안녕 하세요"
    assert transcript(("English", "one"), (None, ""), ("Thai", "สวัสดี")).text == "oneสวัสดี"


def test_languages_and_faults_are_summed_up() -> None:
    whole = transcript(("English", "a"), (None, ""), ("Chinese", "好"), ("English", "b"))
    assert whole.languages == ("English", "Chinese")
    assert whole.language == "English,Chinese"
    assert whole.tokens == 8
    assert whole.truncated
    assert transcript((None, "")).language is None
    assert not transcript((None, "")).truncated
