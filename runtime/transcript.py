"""From the model's raw output to a transcript: language, text, segments and what went wrong on the way."""

import re
import unicodedata
from dataclasses import dataclass

from runtime.prompt import ASR_TEXT

# A unit of 1 to 20 characters, 20 times in a row or more, is a decoder that ran in circles (the bounds of qwen-asr
# 0.0.6, inference/utils.py). One of them is kept.
_REPETITION = re.compile(r"(.{1,20}?)\1{19,}", re.DOTALL)
_LANGUAGE = re.compile(r"^\s*language +(\S[^\n]*?)\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Hypothesis:
    """What was heard in one segment: `language` is None where nobody speaks."""

    language: str | None
    text: str
    repeated: int = 0  # characters dropped because the decoder ran in circles


@dataclass(frozen=True)
class Segment:
    """A stretch of the audio, in seconds from its start, with its hypothesis and how it was decoded."""

    start: float
    end: float
    hypothesis: Hypothesis
    tokens: tuple[int, ...] = ()
    truncated: bool = False  # the token limit cut the text off


@dataclass(frozen=True)
class Transcript:
    """All that was heard in one file, `seconds` long."""

    source: str
    seconds: float
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The segments' texts, joined as their script wants it: with a space, or without in Chinese and the like."""
        joined = ""
        for segment in self.segments:
            text = segment.hypothesis.text
            parted = joined and text and not (_unspaced(joined[-1]) or _unspaced(text[0]))
            joined += f" {text}" if parted else text
        return joined

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages heard, in order of first appearance; empty for silence."""
        return tuple(dict.fromkeys(s.hypothesis.language for s in self.segments if s.hypothesis.language))

    @property
    def language(self) -> str | None:
        """The languages heard, with commas between them; None for silence."""
        return ",".join(self.languages) or None

    @property
    def tokens(self) -> int:
        """Number of tokens decoded, end tokens left out."""
        return sum(len(segment.tokens) for segment in self.segments)

    @property
    def truncated(self) -> bool:
        """Whether any segment hit the token limit, so that text is missing."""
        return any(segment.truncated for segment in self.segments)

    @property
    def repeated(self) -> int:
        """Characters dropped as repetition."""
        return sum(segment.hypothesis.repeated for segment in self.segments)


def read(raw: str, *, forced: str | None = None) -> Hypothesis:
    """Read `language X<asr_text>text`, the model's raw output; with a forced language all of it is text.

    Without a tag, all of it is text of no known language. `language None` means that nobody speaks.
    """
    output = _REPETITION.sub(r"\1", raw.strip())
    repeated = len(raw.strip()) - len(output)
    if forced:
        return Hypothesis(forced if output else None, output, repeated)
    head, tag, text = output.partition(ASR_TEXT)
    if not tag:
        return Hypothesis(None, head, repeated)
    found = _LANGUAGE.search(head)
    name = found[1].capitalize() if found else "None"
    return Hypothesis(None if name == "None" else name, text.strip(), repeated)


def _unspaced(character: str) -> bool:
    """Whether the character belongs to a script, or its punctuation, that is written without spaces."""
    name = unicodedata.name(character, "")
    wide = unicodedata.east_asian_width(character) in "WF" and not name.startswith("HANGUL")
    return wide or name.startswith("THAI")
