"""Texts as they are compared: what is no error, such as case and punctuation, taken away, language by language.

Two error rates compare only where the texts went the same way. This one:

- English: Whisper's English normaliser, from whisper-normalizer, with which Qwen scored Qwen2-Audio. Lower case; "hmm",
  "mm", "uh", "um" and what is in brackets away; contractions and titles in full; numbers in digits ("ten thirty" is
  1030); British spellings as American ones; accents and punctuation away.
- Chinese, Cantonese: as the Open ASR Leaderboard does it. Full width as half width (NFKC); traditional characters as
  simplified ones (OpenCC); lower case; what is in [] and <> away; numbers as they are read (wetext: 2007年 is
  二零零七年, 50% is 百分之五十); punctuation away. Cantonese too, as in Qwen2-Audio's scoring: which script a model
  writes is no error of hearing.
- Arabic, Persian: Whisper's basic normaliser, without diacritics: vowel signs go, and the hamza and madda of a letter.
- All others: Whisper's basic normaliser. NFKC; lower case; what is in brackets, and punctuation, away. Marks stay,
  unlike in Whisper, where words of Hindi and Thai fall apart at their vowel signs. Numbers stay as they are written.

Spaces do not count for languages written without them: `runtime.measure.scoring` leaves them out.
"""

import functools
import re
import unicodedata

import opencc
import wetext
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

WITHOUT_DIACRITICS = frozenset({"Arabic", "Persian"})

_FRACTION = re.compile("(?<=[0-9])(?=[¼-¾⅐-⅞])")  # NFKC would make 293/4 of 29¾
_BESIDE_HAN = re.compile(r"(?<=[\u3400-\u9fff])\s+|\s+(?=[\u3400-\u9fff])")

_english = functools.cache(EnglishTextNormalizer)
_basic = functools.cache(BasicTextNormalizer)
_simplifier = functools.cache(opencc.OpenCC)
_reader = functools.cache(wetext.Normalizer)


def normalise(text: str, language: str | None) -> str:
    """The text without what is no error in this language (an English name, None for unknown)."""
    if language == "English":
        normal = _english()(text)
    elif language in {"Chinese", "Cantonese"}:
        normal = _basic(preserve_marks=True)(_read_out(text))
    elif language in WITHOUT_DIACRITICS:
        normal = _basic(remove_diacritics=True)(text)
    else:
        normal = _basic(preserve_marks=True)(text)
    return " ".join(normal.split())


def _read_out(text: str) -> str:
    """Chinese in simplified characters, with the numbers as they are read."""
    text = unicodedata.normalize("NFKC", _FRACTION.sub(" ", text)).replace("⁄", "/")
    text = _simplifier("t2s").convert(text).lower()
    text = _BESIDE_HAN.sub("", re.sub("[()]", " ", text))
    if any(character.isdecimal() for character in text):  # reading leaves all else as it is, and takes milliseconds
        text = _reader(lang="zh", operator="tn").normalize(text)
    return text.replace("〇", "零")
