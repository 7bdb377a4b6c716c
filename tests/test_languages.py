"""Languages by every name an operator may use."""

import pytest

from runtime import languages
from runtime.languages import LANGUAGES, UnknownLanguageError, resolve


@pytest.mark.parametrize("english", LANGUAGES)
def test_a_language_is_found_by_each_of_its_names(english: str) -> None:
    for name in (english, english.lower(), english.upper(), *LANGUAGES[english].names):
        assert resolve(f" {name} ") == english


def test_the_thirty_are_those_of_the_checkpoint(reference: object) -> None:
    from reference import REFERENCE, read_json

    assert reference == REFERENCE
    assert list(LANGUAGES) == read_json(REFERENCE / "configs" / "Qwen3-ASR-1.7B" / "config.json")["support_languages"]


def test_no_name_means_two_languages() -> None:
    names = [name.casefold() for english, language in LANGUAGES.items() for name in (english, *language.names)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("tag", "english"),
    [
        *(("en-US", "English"), ("en_gb", "English"), ("pt-BR", "Portuguese"), ("es-419", "Spanish")),
        *(("zh-CN", "Chinese"), ("zh-TW", "Chinese"), ("zh-Hans", "Chinese"), ("zh-Hant-TW", "Chinese")),
        *(("zh-HK", "Cantonese"), ("zh-Hant-HK", "Cantonese"), ("zh_MO", "Cantonese"), ("zh-yue", "Cantonese")),
        *(("cmn_hans_cn", "Chinese"), ("yue-Hant-HK", "Cantonese"), ("fil-PH", "Filipino"), ("tgl", "Filipino")),
        *(("deu", "German"), ("ger", "German"), ("fre-CA", "French"), ("in-ID", "Indonesian"), ("nan-TW", "Chinese")),
        *(("zh_CN.UTF-8", "Chinese"), ("de_DE@euro", "German"), ("en-x-private", "English"), ("english-US", "English")),
        *(("Français", "French"), ("العربية", "Arabic"), ("Bahasa Indonesia", "Indonesian"), ("日本語", "Japanese")),
    ],
)
def test_tags_of_browsers_phones_and_systems_name_their_language(tag: str, english: str) -> None:
    assert resolve(tag) == english


@pytest.mark.parametrize("name", [None, "", "  ", "auto", "AUTO", "null", "und", "None", "undefined", "detect"])
def test_the_model_finds_the_language_out_itself(name: str | None) -> None:
    assert resolve(name) is None


def test_hong_kong_is_chinese_to_a_checkpoint_without_cantonese() -> None:
    assert resolve("zh-HK", supported=("English", "Chinese")) == "Chinese"
    with pytest.raises(UnknownLanguageError, match="knows only English, Chinese"):
        resolve("yue", supported=("English", "Chinese"))


@pytest.mark.parametrize("typed", ["xx", "uk", "he-IL", "iw", "ji", "en-", "en-!!", "-", "e", "en or fr", "\ud800"])
def test_a_code_of_no_language_suggests_no_other_one(typed: str) -> None:
    with pytest.raises(UnknownLanguageError) as refused:
        resolve(typed)
    assert "did you mean" not in str(refused.value)
    assert "Macedonian" in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "hint"), [("Englisch", "English (en)"), ("Frensh", "French (fr)"), ("普通", "Chinese (zh)")]
)
def test_an_unknown_name_is_refused_with_the_nearest(typed: str, hint: str) -> None:
    with pytest.raises(UnknownLanguageError) as refused:
        resolve(typed)
    assert typed in str(refused.value)
    assert hint in str(refused.value)


def test_without_anything_near_all_are_listed() -> None:
    with pytest.raises(UnknownLanguageError, match="Macedonian"):
        resolve("xxxxxxxx")


def test_a_checkpoint_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UnknownLanguageError, match="knows only English, Chinese"):
        resolve("fr", supported=("English", "Chinese"))


def test_codes() -> None:
    assert languages.code("Cantonese") == "yue"
    assert languages.code(None) is None
    assert languages.code("Klingon") is None
