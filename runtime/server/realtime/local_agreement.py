"""Partial transcripts of a turn: words are sent as soon as they are confirmed, and never taken back.

The end of what was said so far may be half a word, so one hypothesis alone is not reliable. The common prefix of two
successive hypotheses is (local agreement: Liu, Spanakis, Niehues, "Low-Latency Sequence-to-Sequence Speech Recognition
and Translation by Partial Hypothesis Selection", 2020). Confirmed text is given to the model as the beginning of its
answer, so it is neither decoded again nor contradicted.
"""

import re
from dataclasses import dataclass, field

from runtime import transcript
from runtime.languages import UNSPACED
from runtime.model.prompt import ASR_TEXT
from runtime.transcript import Hypothesis, Segment, Transcript

NO_HYPOTHESIS = Hypothesis(None, "")


@dataclass
class PartialTranscript:
    """The partial transcript of one turn, segment after segment. `forced` is the language that the prompt names; None:
    the model detects it."""

    forced: str | None
    done: list[Segment] = field(default_factory=list)
    confirmed: Hypothesis = NO_HYPOTHESIS  # text of the current segment
    confirmed_samples: int = 0  # samples of the current segment that contain the confirmed text
    _emitted_chars: int = 0
    _last_hypothesis: Hypothesis | None = None
    _last_samples: int = 0  # that the last hypothesis covers

    @property
    def prompt_prefix(self) -> str:
        """The beginning of the model's answer, appended to the prompt."""
        text = self.confirmed.text
        return text if self.forced or not text else f"language {self.confirmed.language}{ASR_TEXT}{text}"

    @property
    def transcript(self) -> Transcript:
        """All finished segments, and what is confirmed of the current one."""
        return Transcript("", 0, (*self.done, Segment(0, 0, self.confirmed)))

    def update(self, raw: str, *, samples: int) -> str:
        """Take the model's answer to the first `samples` samples of the current segment; return the text that it
        confirms."""
        hypothesis, last, confirmed_samples = self._read(raw), self._last_hypothesis, self._last_samples
        self._last_hypothesis, self._last_samples = hypothesis, samples
        if last and hypothesis.language and last.language == hypothesis.language:
            common = common_prefix(last.text, hypothesis.text, hypothesis.language)
            if len(common) > len(self.confirmed.text) and common.startswith(self.confirmed.text):
                self.confirmed, self.confirmed_samples = Hypothesis(hypothesis.language, common), confirmed_samples
        return self._new_text()

    def finish_segment(self, raw: str, *, tokens: tuple[int, ...] = (), truncated: bool = False) -> str:
        """Take the model's answer to the whole segment, and go on to the next; return the new text."""
        hypothesis = self._read(raw)
        if not hypothesis.text.startswith(self.confirmed.text):  # a repetition, recognised too late
            hypothesis = Hypothesis(self.confirmed.language, self.confirmed.text, hypothesis.repeated)
        self.done.append(Segment(0, 0, hypothesis, tokens, truncated))
        self.confirmed, self._last_hypothesis, self._last_samples, self.confirmed_samples = NO_HYPOTHESIS, None, 0, 0
        return self._new_text()

    def _read(self, raw: str) -> Hypothesis:
        """Parse an answer that continues the prompt's prefix."""
        if self.confirmed.text:
            return transcript.parse(self.confirmed.text + raw, forced=self.confirmed.language)
        return transcript.parse(raw, forced=self.forced)

    def _new_text(self) -> str:
        text = self.transcript.text
        new, self._emitted_chars = text[self._emitted_chars :], len(text)
        return new


def common_prefix(last: str, hypothesis: str, language: str | None) -> str:
    """The common prefix of two texts, in whole words; in languages without spaces, in characters.

    The earlier text's last word is left out: it may have been half a word, and its full stop none.
    """
    pattern = r"(?s)." if language in UNSPACED else r"\s*\S+"
    common = ""
    for one, other in zip(re.findall(pattern, last)[:-1], re.findall(pattern, hypothesis), strict=False):
        if one != other:
            break
        common += one
    return common
