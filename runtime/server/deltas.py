"""Text as it grows, while tokens come in."""

import sys
from collections.abc import Callable, Sequence

from runtime import transcript
from runtime.model.prompt import ASR_TEXT, UNFINISHED
from runtime.transcript import Segment


class Deltas:
    """Tells `tell` what is new of a transcript's text, segment after segment; joined, that is the text.

    There is one exception: where the model runs in circles, the repetition has been told before it is recognised and
    dropped.
    """

    def __init__(
        self,
        *,
        raw: Callable[[Sequence[int]], str],
        language: str | None,
        tell: Callable[[str], None],
        most_tokens: int | None = None,
    ) -> None:
        self._raw, self._language, self._tell = raw, language, tell
        self._before = ""  # the segments that are done
        self._told = ""
        self._left = sys.maxsize if most_tokens is None else most_tokens  # tokens of segments that are not done

    def grow(self, tokens: Sequence[int]) -> None:
        """The segment at hand has these tokens so far."""
        raw = self._raw(tokens[: self._left])
        if self._language or ASR_TEXT in raw:  # before, it is the language that grows
            text = transcript.read_open(raw.rstrip(UNFINISHED), forced=self._language)
            self._advance(transcript.joined((self._before, text)))

    def end(self, segment: Segment) -> None:
        """The segment at hand is done."""
        text = segment.hypothesis.text
        if len(segment.tokens) > self._left:
            text = transcript.read(self._raw(segment.tokens[: self._left]), forced=self._language).text
        self._left = max(0, self._left - len(segment.tokens))
        self._before = transcript.joined((self._before, text))
        self._advance(self._before)
        self._told = self._before  # also where a repetition was told: what follows shall be

    def _advance(self, text: str) -> None:
        if len(text) > len(self._told) and text.startswith(self._told):
            new, self._told = text[len(self._told) :], text
            self._tell(new)
