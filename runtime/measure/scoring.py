"""How far a hypothesis is from what was said: words or characters, aligned and counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import jiwer

from runtime.languages import UNSPACED, by_script
from runtime.measure.normalising import normalise

Unit = Literal["words", "characters"]
Kind = Literal["equal", "substitute", "delete", "insert"]


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
