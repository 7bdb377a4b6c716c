"""How far a hypothesis is from what was said."""

import jiwer

from runtime import languages


def error_rate(reference: str, hypothesis: str, language: str | None) -> float:
    """Word error rate, or character error rate for a language written without spaces. Any text where none is expected
    is an error rate of 1."""
    if not reference.strip():
        return float(bool(hypothesis.strip()))
    measure = jiwer.cer if language in languages.UNSPACED else jiwer.wer
    return float(measure(reference, hypothesis))
