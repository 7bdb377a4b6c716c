"""Text as it grows, while tokens come in."""

from collections.abc import Callable, Sequence

from runtime import transcript
from runtime.prompt import ASR_TEXT
from runtime.transcript import Hypothesis, Segment, Transcript

UNFINISHED = "\ufffd"  # stands for a character of which not all bytes have come


class Deltas:
    """Tells `tell` what is new of a transcript's text, segment after segment; joined, that is the text.

    There is one exception: where the model runs in circles, the repetition has been told before it is recognised and
    dropped.
    """

    def __init__(
        self, *, raw: Callable[[Sequence[int]], str], language: str | None, tell: Callable[[str], None]
    ) -> None:
        self._raw, self._language, self._tell = raw, language, tell
        self._before = ""  # the segments that are done
        self._told = ""

    def grow(self, tokens: Sequence[int]) -> None:
        """The segment at hand has these tokens so far."""
        raw = self._raw(tokens)
        if self._language or ASR_TEXT in raw:  # before, it is the language that grows
            self._advance(_joined(self._before, transcript.read(raw, forced=self._language).text.rstrip(UNFINISHED)))

    def end(self, segment: Segment) -> None:
        """The segment at hand is done."""
        self._before = _joined(self._before, segment.hypothesis.text)
        self._advance(self._before)

    def _advance(self, text: str) -> None:
        if len(text) > len(self._told) and text.startswith(self._told):
            new, self._told = text[len(self._told) :], text
            self._tell(new)


def _joined(before: str, text: str) -> str:
    """As a transcript joins the texts of its segments."""
    return Transcript("", 0, tuple(Segment(0, 0, Hypothesis(None, part)) for part in (before, text))).text
