"""The checks beyond the clips: each compares a transcript with the same clip's on its own."""

import io
import itertools
import wave
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from env.errors import KitError
from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.formats import FORMATS
from runtime.measure.scoring import count
from runtime.measure.smoke.hearing import Ask
from runtime.measure.smoke.judge import Ears, asked, difference
from runtime.measure.smoke.reading import Cue, Document
from runtime.measure.smoke.record import Check

QUIET = 2  # seconds of silence
WORDS = "Atlas, Ascend, 昇腾"  # hotwords that are in none of the official clips
TOGETHER = 4  # clips in a batch, at least
ROUNDING = 0.001  # seconds; times are written in milliseconds

# Raises KitError, else returns what was found and, if it is not as it should be, why.
Trying = Callable[[], tuple[str, str]]


@dataclass(frozen=True)
class Trial:
    """A check to be made: its name in CHECKS, the clip's, what is asked, and how it is judged."""

    check: str
    clip: str
    ask: Ask
    trying: Trying

    def made(self, ears: Ears) -> Check:
        """The check; a transcription that fails is a fault."""
        try:
            found, fault = self.trying()
        except KitError as error:
            reason = f"{error.subject}: {error.reason}"
            return Check(self.check, self.clip, "", reason, ears.advice(self.ask, error))
        return Check(self.check, self.clip, found, fault, ears.advice(self.ask) if fault else "")


def trials(ears: Ears, clips: Sequence[Clip]) -> list[Trial]:
    """All checks, of one clip or more, in which somebody speaks in the first."""
    first = clips[0]
    assert first.language
    other = "English" if first.language == "Chinese" else "Chinese"
    named = next((clip for clip in clips if clip.context), None)
    silence = Ask(_silence(), context=WORDS)
    several = list(itertools.islice(itertools.cycle(clips), max(TOGETHER, len(clips))))

    def trial(check: str, clip: Clip, ask: Ask, trying: Callable[..., tuple[str, str]]) -> Trial:
        return Trial(check, clip.path.name, ask, partial(trying, ears, clip, ask))

    return [
        *(trial(form, first, Ask(first.path, context=first.context, form=form), _written) for form in FORMATS),
        trial("language", first, Ask(first.path, language=first.language, context=first.context), _forced),
        trial("other-language", first, Ask(first.path, language=other, context=first.context), _forced_other),
        trial("context", named, asked(named), _spelt)
        if named
        else trial("context", first, Ask(first.path, context=WORDS), _harmless),
        Trial("silence", f"{QUIET} s", silence, partial(_silent, ears, silence)),
        Trial("batch", f"{len(several)} clips", asked(first), partial(_together, ears, several)),
    ]


def _written(ears: Ears, clip: Clip, ask: Ask) -> tuple[str, str]:
    """A format says what json does, with times that are the clip's."""
    alone, heard = ears.alone(clip), ears.hear(ask)
    fault = difference(alone, heard) or _misplaced(heard.cues, alone.seconds)
    if ask.form in ("json", "verbose_json"):
        found = f"{heard.language}, {heard.seconds:.2f} s"
        if (heard.language, heard.seconds) != (alone.language, alone.seconds):
            fault = fault or f"{found}, expected {alone.language}, {alone.seconds:.2f} s"
    elif heard.cues:
        found = f"{len(heard.cues)} cue{'s' * (len(heard.cues) > 1)}, to {heard.cues[-1].end:.2f} s"
    else:
        found = f"{len(heard.text)} characters"
    if ask.form in ("verbose_json", "srt", "vtt") and not heard.cues:
        fault = fault or "no cue, which a clip with words must have"
    return found, fault


def _misplaced(cues: Sequence[Cue], seconds: float) -> str:
    """Which cue does not lie in the audio, behind the one before; empty if all do."""
    end = 0.0
    for number, cue in enumerate(cues, start=1):
        if not end <= cue.start < cue.end <= seconds + ROUNDING:
            return (
                f"cue {number} is from {cue.start:.3f} to {cue.end:.3f} s, expected within {end:.3f} to {seconds:.3f}"
            )
        end = cue.end
    return ""


def _forced(ears: Ears, clip: Clip, ask: Ask) -> tuple[str, str]:
    """The language is the one that was forced, and the text as it is without."""
    found, fault = _forced_other(ears, clip, ask)
    return found, fault or difference(ears.alone(clip), ears.hear(ask))


def _forced_other(ears: Ears, _: Clip, ask: Ask) -> tuple[str, str]:
    """The language is the one that was forced, which shows that it is not detected all the same."""
    heard = ears.hear(ask)
    found = str(heard.language)
    return found, "" if heard.language == ask.language else f"language {found}, although {ask.language} was forced"


def _spelt(ears: Ears, clip: Clip, _: Ask) -> tuple[str, str]:
    """The context brings a spelling that is not there without."""
    with_it, without = ears.alone(clip), ears.hear(Ask(clip.path))
    better, worse = (count(clip.text, heard.text, clip.language).rate for heard in (with_it, without))
    changed = [step for step in count(without.text, with_it.text, clip.language).steps if step.kind != "equal"]
    found = ", ".join(f"{step.reference} → {step.hypothesis}" for step in changed) or "nothing changes"
    return found, "" if better < worse else f"{clip.context!r} as context does not bring its spelling: {found}"


def _harmless(ears: Ears, clip: Clip, ask: Ask) -> tuple[str, str]:
    """Hotwords that nobody says change nothing and are not written."""
    alone, heard = ears.alone(clip), ears.hear(ask)
    written = [word for word in WORDS.split(", ") if word.casefold() in heard.text.casefold()]
    if written:
        return "", f"{', '.join(written)} is in the text, which only the context holds"
    return "the text stays", difference(alone, heard)


def _silent(ears: Ears, ask: Ask) -> tuple[str, str]:
    """Silence gives no text, whatever the context."""
    heard = ears.hear(ask)
    return heard.text or "(nothing)", f"text in silence: {heard.text!r}" if heard.text else ""


def _together(ears: Ears, clips: Sequence[Clip]) -> tuple[str, str]:
    """Clips that are asked for at once give what each gives on its own."""
    alone = [ears.alone(clip) for clip in clips]
    with ThreadPoolExecutor(len(clips)) as threads:
        heard = list(threads.map(ears.hear, map(asked, clips)))
    faults = [
        f"{clip.path.name}: {fault}"
        for clip, one, other in zip(clips, alone, heard, strict=True)
        if (fault := _other(one, other))
    ]
    return f"{len(clips) - len(faults)} of {len(clips)} as alone", "; ".join(faults)


def _other(alone: Document, together: Document) -> str:
    if alone.language != together.language:
        return f"language {together.language} instead of {alone.language}"
    return difference(alone, together)


def _silence() -> bytes:
    """A WAV file of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        writer.writeframes(bytes(2 * QUIET * SAMPLE_RATE))
    return file.getvalue()
