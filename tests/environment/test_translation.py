"""What the kit says to people it says in Chinese, too: each text, with the same values in it."""

import gettext
import re
from string import Formatter

from babel.messages.catalog import Catalog

from env.translation import Bilingual, in_context, translated
from runtime.tasks import catalogue

RENEW = "invoke dev.translations, then write the Chinese into env/locale/zh/LC_MESSAGES/kit.po and type it again"


def entries() -> dict[tuple[str | None, str], str]:
    """The Chinese of each text of the catalogue."""
    found: Catalog = catalogue.read()
    return {(entry.context, str(entry.id)): str(entry.string) for entry in found if entry.id}


def test_each_text_of_the_code_is_in_the_catalogue_and_nothing_else() -> None:
    spoken = catalogue.spoken()
    assert len(spoken) > 500
    assert entries().keys() - spoken == set(), f"stale: {RENEW}"
    assert spoken - entries().keys() == set(), f"missing: {RENEW}"


def test_each_has_its_chinese() -> None:
    assert [key for key, chinese in entries().items() if not chinese] == [], RENEW
    assert [entry.id for entry in catalogue.read() if entry.fuzzy and entry.id] == []
    assert sum(bool(re.search("[\u4e00-\u9fff]", chinese)) for chinese in entries().values()) > 500


def test_the_same_values_stand_in_both() -> None:
    for (_, english), chinese in entries().items():
        assert re.findall(r"{\w*}", english) == [] or placeholders(chinese) == placeholders(english), english


def placeholders(text: str) -> set[str]:
    """The names of the values that stand in a text."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_what_is_compiled_is_the_catalogue() -> None:
    with catalogue.PO.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for (context, text), chinese in entries().items():
        assert (compiled.pgettext(context, text) if context else compiled.gettext(text)) == chinese, RENEW


def test_values_are_in_the_language_of_the_text() -> None:
    found = translated("{what} {there}, now {here}", what=translated("device"), there="cpu", here="npu:0")
    assert found == Bilingual("device cpu, now npu:0", "设备为 cpu,现为 npu:0")
    assert found["zh"] == found.zh


def test_one_word_may_mean_two_things() -> None:
    assert translated("Memory").zh != in_context("check", "Memory").zh
