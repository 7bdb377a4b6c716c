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

Spaces do not count for languages written without them: `runtime.measure.error_rate` leaves them out.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import jiwer
import opencc
import wetext
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from runtime.languages import UNSPACED, by_script

WITHOUT_DIACRITICS = frozenset({"Arabic", "Persian"})

_FRACTION = re.compile("(?<=[0-9])(?=[¼-¾⅐-⅞])")  # NFKC would make 293/4 of 29¾
_BESIDE_HAN = re.compile(r"(?<=[\u3400-\u9fff])\s+|\s+(?=[\u3400-\u9fff])")

_english = functools.cache(EnglishTextNormalizer)
_basic = functools.cache(BasicTextNormalizer)
_simplifier = functools.cache(opencc.OpenCC)
_reader = functools.cache(wetext.Normalizer)

Unit = Literal["words", "characters"]
Kind = Literal["equal", "substitute", "delete", "insert"]


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


@dataclass(frozen=True)
class Step:
    """A stretch of an alignment. `reference` and `hypothesis` are the words, parted by spaces, or the characters that
    stand against each other; what is deleted has no hypothesis, what is inserted no reference."""

    kind: Kind
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Counts:
    """One utterance's alignment. The rate of many is the sum of their `errors` over the sum of their `length`; only
    counts of one unit add up."""

    unit: Unit
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    steps: tuple[Step, ...]

    @property
    def errors(self) -> int:
        """Units that are wrong, missing or too many."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Units in the reference; 0 where nobody speaks."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per unit of the reference, which may be over 1. Any text where none is expected counts as 1."""
        return self.errors / self.length if self.length else float(self.errors > 0)


def count(reference: str, hypothesis: str, language: str | None, *, plain: bool = False) -> Counts:
    """Align two texts in a language (an English name), both normalised unless they are `plain`.

    Characters are counted, without the spaces between them, where the language is written without spaces, also those of
    foreign words in between; else words. For None the script of the reference decides, or that of the hypothesis where
    there is no reference.
    """
    language = language or by_script(reference or hypothesis)
    if not plain:
        reference, hypothesis = normalise(reference, language), normalise(hypothesis, language)
    if language in UNSPACED:
        return _aligned("".join(reference.split()), "".join(hypothesis.split()), "characters")
    return _aligned(reference.split(), hypothesis.split(), "words")


def error_rate(reference: str, hypothesis: str, language: str | None) -> float:
    """Word error rate, or character error rate for a language written without spaces, of the normalised texts. Any
    text where none is expected is an error rate of 1."""
    return count(reference, hypothesis, language).rate


def _aligned(reference: Sequence[str], hypothesis: Sequence[str], unit: Unit) -> Counts:
    space = " " if unit == "words" else ""
    output = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    steps = tuple(
        Step(
            cast(Kind, chunk.type),
            space.join(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
            space.join(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in output.alignments[0]
    )
    return Counts(unit, output.hits, output.substitutions, output.deletions, output.insertions, steps)
