"""A clip's transcript against what is said in it, and against another transcript of the same clip."""

import time
from dataclasses import dataclass, field

from env.errors import KitError
from runtime.demo import Clip
from runtime.measure.scoring import error_rate
from runtime.measure.smoke.hearing import Ask, Hearing
from runtime.measure.smoke.reading import Document, read
from runtime.measure.smoke.record import Verdict

TOLERANCE = 0.1  # error rate; CPUs and NPUs round differently, and a word on the edge may tip over
CUT_OFF = "the text was cut off at the token limit"
LONGER = "raise ASR_MAX_NEW_TOKENS"


@dataclass(frozen=True)
class Ears:
    """Whatever hears, with a memory of what each clip gave on its own."""

    hearing: Hearing
    _heard: dict[Clip, Document] = field(default_factory=dict)

    def hear(self, ask: Ask) -> Document:
        """What is heard, as it is written and read back. Raises KitError."""
        return read(ask.form, self.hearing.hear(ask))

    def alone(self, clip: Clip) -> Document:
        """What the clip gives on its own, with its context. Raises KitError."""
        if clip not in self._heard:
            self._heard[clip] = self.hear(asked(clip))
        return self._heard[clip]

    def advice(self, ask: Ask, error: KitError | None = None) -> str:
        """What to look at where something asked for is wrong, or failed: the error's own advice goes first."""
        first = (error and error.advice) or self.hearing.suspects
        again = self.hearing.again(ask)
        return f"{first}; the same again: {again}" if again else first


def asked(clip: Clip) -> Ask:
    """A clip on its own."""
    return Ask(clip.path, context=clip.context)


def judge(ears: Ears, clip: Clip) -> Verdict:
    """What is made of a clip. A transcription that fails is a verdict, too."""
    started = time.perf_counter()
    try:
        heard = ears.alone(clip)
    except KitError as error:
        fault, advice = f"{error.subject}: {error.reason}", ears.advice(asked(clip), error)
        return Verdict(clip.path.name, 0.0, clip.language, None, clip.text, "", 1.0, 0.0, fault, advice)
    elapsed = time.perf_counter() - started
    rate = error_rate(clip.text, heard.text, clip.language)
    faults = []
    if heard.truncated:
        faults.append(CUT_OFF)
    if heard.language != clip.language:
        faults.append(f"language {heard.language}, expected {clip.language}")
    if rate > TOLERANCE:
        faults.append(f"error rate {rate:.0%}, at most {TOLERANCE:.0%} expected")
    advice = LONGER if heard.truncated else ears.advice(asked(clip))
    return Verdict(
        clip.path.name,
        heard.seconds,
        clip.language,
        heard.language,
        clip.text,
        heard.text,
        rate,
        elapsed / heard.seconds,
        "; ".join(faults),
        advice if faults else "",
    )


def difference(one: Document, other: Document) -> str:
    """How another transcript's text differs from the one that it should equal, up to the tolerance; empty if it does
    not."""
    rate = error_rate(one.text, other.text, one.language)
    if rate <= TOLERANCE:
        return ""
    return f"{other.text!r} instead of {one.text!r}, an error rate of {rate:.0%}, at most {TOLERANCE:.0%} expected"
