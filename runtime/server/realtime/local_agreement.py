"""The words of a turn while it is spoken: told as soon as they are certain, and never taken back.

The end of what was said so far may be half a word, so a hypothesis alone is not to be trusted. What two hypotheses in a
row have in common at their beginning is (local agreement: Liu, Spanakis, Niehues, "Low-Latency Sequence-to-Sequence
Speech Recognition and Translation by Partial Hypothesis Selection", 2020). What was told is given to the model as the
beginning of its answer; so it is neither decoded again nor contradicted.
"""

import re
from dataclasses import dataclass, field

from runtime import transcript
from runtime.languages import UNSPACED
from runtime.model.prompt import ASR_TEXT
from runtime.transcript import Hypothesis, Segment, Transcript

NOTHING = Hypothesis(None, "")


@dataclass
class PartialTranscript:
    """Of one turn, segment after segment. `forced` is the language that the prompt names, None where it names none."""

    forced: str | None
    done: list[Segment] = field(default_factory=list)
    certain: Hypothesis = NOTHING  # of the segment at hand, what was told
    reach: int = 0  # samples of the segment at hand that hold all that was told of it
    _told: int = 0  # characters
    _last: Hypothesis | None = None
    _heard: int = 0  # samples that the last hypothesis is of

    @property
    def beginning(self) -> str:
        """What the model's answer begins with, to be put after the prompt."""
        if not self.certain.text:
            return ""
        return self.certain.text if self.forced else f"language {self.certain.language}{ASR_TEXT}{self.certain.text}"

    @property
    def transcript(self) -> Transcript:
        """All that is certain."""
        return Transcript("", 0, (*self.done, Segment(0, 0, self.certain)))

    def guess(self, raw: str, *, heard: int) -> str:
        """The model's answer to the first `heard` samples of the segment at hand; returns what it makes certain."""
        now, before, reach = self._read(raw), self._last, self._heard
        self._last, self._heard = now, heard
        if before and now.language and before.language == now.language:
            common = agreed(before.text, now.text, now.language)
            if len(common) > len(self.certain.text) and common.startswith(self.certain.text):
                self.certain, self.reach = Hypothesis(now.language, common), reach
        return self._news()

    def finish(self, raw: str, *, tokens: tuple[int, ...] = (), truncated: bool = False) -> str:
        """The model's answer to the whole segment at hand, after which comes the next; returns what is new in it."""
        now = self._read(raw)
        if not now.text.startswith(self.certain.text):  # it ran in circles, in part before this was recognised
            now = Hypothesis(self.certain.language, self.certain.text, now.repeated)
        self.done.append(Segment(0, 0, now, tokens, truncated))
        self.certain, self._last, self._heard, self.reach = NOTHING, None, 0, 0
        return self._news()

    def _read(self, raw: str) -> Hypothesis:
        """An answer whose beginning was given."""
        if self.certain.text:
            return transcript.read(self.certain.text + raw, forced=self.certain.language)
        return transcript.read(raw, forced=self.forced)

    def _news(self) -> str:
        text = self.transcript.text
        news, self._told = text[self._told :], len(text)
        return news


def agreed(before: str, now: str, language: str | None) -> str:
    """What two texts have in common at their beginning, in whole words; in Chinese and the like, characters.

    The last word of the earlier one does not count: it may have been half a word, and a stop behind it none.
    """
    pattern = r"(?s)." if language in UNSPACED else r"\s*\S+"
    common = ""
    for one, other in zip(re.findall(pattern, before)[:-1], re.findall(pattern, now), strict=False):
        if one != other:
            break
        common += one
    return common
