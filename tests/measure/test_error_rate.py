"""What is no error in a language, and the score of one utterance."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.languages import LANGUAGES
from runtime.measure.error_rate import Counts, Step, count, error_rate, normalise

OFFICIAL = (
    "Mm. Oh, yeah, yeah. He wasn't even that big when I started listening to him, but and his solo music didn't do "
    "overly well, but he did very well when he started writing for other people."
)

ALIKE = [
    (
        "English",
        "MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES",
        "Mr. Quilter is the apostle of the middle classes.",
    ),
    ("English", "thirty three", "33"),
    ("English", "I won't, it's", "i will not it is"),
    ("English", "Uh, the colour's £5", "the color is £5"),
    ("English", "two thousand dollars", "$2,000"),
    ("English", "naïve café", "naive cafe"),
    ("Chinese", "甚至出现交易几乎停滞的情况。", "甚至 出现 交易 几乎 停滞 的 情况"),
    ("Chinese", "2007年5月,涨了50%", "二零零七年五月涨了百分之五十"),
    ("Chinese", "二〇〇七年", "2007 年"),
    ("Chinese", "請問臺灣的總統", "请问台湾的总统"),
    ("Chinese", "ＧＤＰ增长29¾倍", "gdp增长29 3/4倍"),
    ("Chinese", "[音乐](她)很好", "她很好"),
    ("Cantonese", "佢哋話呢個係25個", "佢哋话呢个系二十五个"),
    ("Japanese", "ｶﾞｷﾞｸﾞ、東京。", "ガギグ 東京"),
    ("Thai", "สวัสดี ครับ!", "สวัสดีครับ"),
    ("Arabic", "مُحَمَّدٌ، أحمد", "محمد احمد"),
    ("German", "Straße, GROẞ!", "straße groß"),
    ("French", "l’été, «oui»", "L'ÉTÉ OUI"),
]
DIFFERENT = [
    ("English", "two thousand", "2001"),
    ("Chinese", "2007年", "2008年"),
    ("Hindi", "की", "का"),
    ("Thai", "ไม่", "ใหม่"),
    ("Thai", "มา", "ม้า"),
    ("German", "schon", "schön"),
    ("Japanese", "は", "ば"),
    ("Vietnamese", "ma", "mã"),
]


@pytest.mark.parametrize(("language", "one", "other"), ALIKE)
def test_what_is_no_error_does_not_count(language: str, one: str, other: str) -> None:
    counts = count(one, other, language)
    assert counts.errors == 0
    assert counts.length > 0


@pytest.mark.parametrize(("language", "one", "other"), DIFFERENT)
def test_what_is_an_error_counts(language: str, one: str, other: str) -> None:
    assert error_rate(one, other, language) > 0


def test_words_stay_whole_at_their_vowel_signs() -> None:
    assert normalise("नमस्ते, दुनिया!", "Hindi") == "नमस्ते दुनिया"


@pytest.mark.parametrize(
    "heard", [OFFICIAL, OFFICIAL.removeprefix("Mm. "), OFFICIAL.upper(), OFFICIAL.replace(",", "")]
)
def test_the_official_clip_is_judged_by_its_words(heard: str) -> None:
    assert error_rate(OFFICIAL, heard, "English") == 0
    assert error_rate(OFFICIAL, heard.lower().replace("music", "musing"), "English") == pytest.approx(1 / 37)


def test_an_alignment_shows_what_stands_against_what() -> None:
    counts = count("so it is well known", "it was well and truly known", "English")
    assert counts.steps == (
        Step("delete", "so", ""),
        Step("equal", "it", "it"),
        Step("substitute", "is", "was"),
        Step("equal", "well", "well"),
        Step("insert", "", "and truly"),
        Step("equal", "known", "known"),
    )
    assert (counts.hits, counts.substitutions, counts.deletions, counts.insertions) == (3, 1, 1, 2)
    assert (counts.errors, counts.length, counts.rate) == (4, 5, 0.8)


def test_characters_count_without_spaces_where_words_have_none() -> None:
    counts = count("我 有 iPhone 手机", "我有iphone守机", "Chinese")
    assert counts.unit == "characters"
    assert counts.length == len("我有iphone手机")
    assert [step.kind for step in counts.steps] == ["equal", "substitute", "equal"]
    assert counts.steps[1] == Step("substitute", "手", "守")


@pytest.mark.parametrize(
    ("reference", "heard", "unit"),
    [
        ("我们用 iPhone 和 MacBook Pro", "", "characters"),
        ("これはペンです", "", "characters"),
        ("สวัสดีครับ", "", "characters"),
        ("he said 你好 and left", "", "words"),
        ("Привет мир", "", "words"),
        ("한국어 입니다", "", "words"),
        ("", "你好", "characters"),
        ("", "hello", "words"),
    ],
)
def test_without_a_language_the_script_decides(reference: str, heard: str, unit: str) -> None:
    assert count(reference, heard, None).unit == unit


def test_chinese_is_known_by_its_script_and_read_as_such() -> None:
    assert error_rate("2007年,請問", "二零零七年请问", None) == 0


@pytest.mark.parametrize(("heard", "insertions", "rate"), [("", 0, 0.0), ("you", 1, 1.0), ("thank you all", 3, 1.0)])
def test_where_nobody_speaks_all_that_is_heard_is_too_much(heard: str, insertions: int, rate: float) -> None:
    counts = count("", heard, "English")
    assert (counts.length, counts.insertions, counts.rate) == (0, insertions, rate)


def test_plain_texts_are_compared_as_they_are() -> None:
    assert count("thirty three", "33", "English", plain=True).rate == 1
    assert count("thirty three", "Thirty three", "English", plain=True).rate == 0.5
    assert count("一百", "100", "Chinese", plain=True).errors == 3


words = st.text(max_size=20) | st.text("0123456789年月%$,.()[]<>两零〇 ab", max_size=20)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(words, words, st.sampled_from([*LANGUAGES, None]), st.booleans())
def test_any_two_texts_have_a_score(reference: str, heard: str, language: str | None, plain: bool) -> None:
    counts = count(reference, heard, language, plain=plain)
    assert _spelt(counts, "reference") == counts.length
    assert _spelt(counts, "hypothesis") == counts.hits + counts.substitutions + counts.insertions
    assert count(reference, reference, language, plain=plain).errors == 0


def _spelt(counts: Counts, side: str) -> int:
    """Units on one side of the alignment."""
    texts = [getattr(step, side) for step in counts.steps]
    return sum(len(text.split()) if counts.unit == "words" else len(text) for text in texts)
