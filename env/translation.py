"""Text for people in English and Chinese: the English stands in the code, the Chinese in a gettext catalogue.

`invoke dev.translations` brings env/locale/zh/LC_MESSAGES/kit.po up to date with the code.
"""

import gettext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Language = Literal["en", "zh"]
DOMAIN = "kit"
LOCALE = Path(__file__).resolve().parent / "locale"


@dataclass(frozen=True)
class Bilingual:
    """The same in English and Chinese."""

    en: str
    zh: str

    def __getitem__(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


def translated(message: str, /, **values: object) -> Bilingual:
    """A text in both languages. `values` fill its placeholders; a Bilingual fills each with its own language."""
    chinese = _catalogue().gettext(message)
    if not values:
        return Bilingual(message, chinese)
    english_values = {name: value.en if isinstance(value, Bilingual) else value for name, value in values.items()}
    chinese_values = {name: value.zh if isinstance(value, Bilingual) else value for name, value in values.items()}
    return Bilingual(message.format(**english_values), chinese.format(**chinese_values))


@dataclass(frozen=True)
class Translator:
    """Says everything in one language."""

    language: Language

    def __call__(self, message: str, /, **values: object) -> str:
        return self.words(translated(message, **values))

    def words(self, text: Bilingual) -> str:
        """A text that is there in both languages."""
        return text[self.language]


def in_context(context: str, message: str) -> Bilingual:
    """A text that means something else elsewhere, in both languages."""
    return Bilingual(message, _catalogue().pgettext(context, message))


def message(text: str) -> str:
    """Mark a text that is translated elsewhere, so that `invoke dev.translations` finds it."""
    return text


@cache
def _catalogue() -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE, languages=["zh"])
