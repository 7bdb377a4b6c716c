"""Languages by every name an operator may use."""

import pytest

from runtime import languages
from runtime.languages import LANGUAGES, UnknownLanguageError, resolve


@pytest.mark.parametrize("english", LANGUAGES)
def test_a_language_is_found_by_each_of_its_names(english: str) -> None:
    for name in (english, english.lower(), english.upper(), *LANGUAGES[english]):
        assert resolve(f" {name} ") == english


def test_the_thirty_are_those_of_the_checkpoint(reference: object) -> None:
    from conftest import REFERENCE, read_json

    assert reference == REFERENCE
    assert list(LANGUAGES) == read_json(REFERENCE / "configs" / "Qwen3-ASR-1.7B" / "config.json")["support_languages"]


def test_no_name_means_two_languages() -> None:
    names = [name.casefold() for english, others in LANGUAGES.items() for name in (english, *others)]
    assert len(names) == len(set(names))


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
