"""A smoke test from its first transcription to its record. Ctrl-C ends it with what was found."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from env.errors import KitError
from env.settings import DEMO, Settings
from runtime.audio import SAMPLE_RATE
from runtime.audio.wav import wav_bytes
from runtime.demo import Clip, bundled_clips
from runtime.formats import FORMATS
from runtime.measure.error_rate import count, error_rate
from runtime.measure.records import COMPLETE, RunClock
from runtime.measure.smoke.backends import SmokeBackend, SmokeRequest
from runtime.measure.smoke.parsers import Cue, ParsedTranscript, read
from runtime.measure.smoke.record import SMOKE, ClipVerdict, Outcome, Smoke, SmokeCheck
from runtime.weights import catalog
from runtime.weights import clips as official_clips
from runtime.weights.catalog import place, shown

TOLERANCE = 0.1  # error rate; CPUs and NPUs round differently, and a word on the edge may tip over
CUT_OFF = "the text was cut off at the token limit"
LONGER = "raise ASR_MAX_NEW_TOKENS"

QUIET = 2  # seconds of silence
WORDS = "Atlas, Ascend, 昇腾"  # hotwords that are in none of the official clips
TOGETHER = 4  # clips in a batch, at least
ROUNDING = 0.001  # seconds; times are written in milliseconds

# Raises KitError, else returns what was found and, if it is not as it should be, why.
Trying = Callable[[], tuple[str, str]]

Step = Callable[[], Outcome]


@dataclass(frozen=True)
class TranscriptCache:
    """Whatever hears, with a memory of what each clip gave on its own."""

    hearing: SmokeBackend
    _heard: dict[Clip, ParsedTranscript] = field(default_factory=dict)

    def hear(self, ask: SmokeRequest) -> ParsedTranscript:
        """What is heard, as it is written and read back. Raises KitError."""
        return read(ask.form, self.hearing.hear(ask))

    def alone(self, clip: Clip) -> ParsedTranscript:
        """What the clip gives on its own, with its context. Raises KitError."""
        if clip not in self._heard:
            self._heard[clip] = self.hear(asked(clip))
        return self._heard[clip]

    def advice(self, ask: SmokeRequest, error: KitError | None = None) -> str:
        """What to look at where something asked for is wrong, or failed: the error's own advice goes first."""
        first = (error and error.advice) or self.hearing.suspects
        again = self.hearing.again(ask)
        return f"{first}; the same again: {again}" if again else first


def asked(clip: Clip) -> SmokeRequest:
    """A clip on its own."""
    return SmokeRequest(clip.path, context=clip.context)


def judge(ears: TranscriptCache, clip: Clip) -> ClipVerdict:
    """What is made of a clip. A transcription that fails is a verdict, too."""
    started = time.perf_counter()
    try:
        heard = ears.alone(clip)
    except KitError as error:
        fault, advice = f"{error.subject}: {error.reason}", ears.advice(asked(clip), error)
        return ClipVerdict(clip.path.name, 0.0, clip.language, None, clip.text, "", 1.0, 0.0, fault, advice)
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
    return ClipVerdict(
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


def difference(one: ParsedTranscript, other: ParsedTranscript) -> str:
    """How another transcript's text differs from the one that it should equal, up to the tolerance; empty if it does
    not."""
    rate = error_rate(one.text, other.text, one.language)
    if rate <= TOLERANCE:
        return ""
    return f"{other.text!r} instead of {one.text!r}, an error rate of {rate:.0%}, at most {TOLERANCE:.0%} expected"


@dataclass(frozen=True)
class Trial:
    """A check to be made: its name in CHECKS, the clip's, what is asked, and how it is judged."""

    check: str
    clip: str
    ask: SmokeRequest
    trying: Trying

    def made(self, ears: TranscriptCache) -> SmokeCheck:
        """The check; a transcription that fails is a fault."""
        try:
            found, fault = self.trying()
        except KitError as error:
            reason = f"{error.subject}: {error.reason}"
            return SmokeCheck(self.check, self.clip, "", reason, ears.advice(self.ask, error))
        return SmokeCheck(self.check, self.clip, found, fault, ears.advice(self.ask) if fault else "")


def trials(ears: TranscriptCache, clips: Sequence[Clip]) -> list[Trial]:
    """All checks, of one clip or more, in which somebody speaks in the first."""
    first = clips[0]
    assert first.language
    other = "English" if first.language == "Chinese" else "Chinese"
    named = next((clip for clip in clips if clip.context), None)
    silence = SmokeRequest(wav_bytes(np.zeros(QUIET * SAMPLE_RATE, np.float32)), context=WORDS)
    several = list(itertools.islice(itertools.cycle(clips), max(TOGETHER, len(clips))))

    def trial(check: str, clip: Clip, ask: SmokeRequest, trying: Callable[..., tuple[str, str]]) -> Trial:
        return Trial(check, clip.path.name, ask, partial(trying, ears, clip, ask))

    return [
        *(trial(form, first, SmokeRequest(first.path, context=first.context, form=form), _written) for form in FORMATS),
        trial("language", first, SmokeRequest(first.path, language=first.language, context=first.context), _forced),
        trial("other-language", first, SmokeRequest(first.path, language=other, context=first.context), _forced_other),
        trial("context", named, asked(named), _spelt)
        if named
        else trial("context", first, SmokeRequest(first.path, context=WORDS), _harmless),
        Trial("silence", f"{QUIET} s", silence, partial(_silent, ears, silence)),
        Trial("batch", f"{len(several)} clips", asked(first), partial(_together, ears, several)),
    ]


def _written(ears: TranscriptCache, clip: Clip, ask: SmokeRequest) -> tuple[str, str]:
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


def _forced(ears: TranscriptCache, clip: Clip, ask: SmokeRequest) -> tuple[str, str]:
    """The language is the one that was forced, and the text as it is without."""
    found, fault = _forced_other(ears, clip, ask)
    return found, fault or difference(ears.alone(clip), ears.hear(ask))


def _forced_other(ears: TranscriptCache, _: Clip, ask: SmokeRequest) -> tuple[str, str]:
    """The language is the one that was forced, which shows that it is not detected all the same."""
    heard = ears.hear(ask)
    found = str(heard.language)
    return found, "" if heard.language == ask.language else f"language {found}, although {ask.language} was forced"


def _spelt(ears: TranscriptCache, clip: Clip, _: SmokeRequest) -> tuple[str, str]:
    """The context brings a spelling that is not there without."""
    with_it, without = ears.alone(clip), ears.hear(SmokeRequest(clip.path))
    better, worse = (count(clip.text, heard.text, clip.language).rate for heard in (with_it, without))
    changed = [step for step in count(without.text, with_it.text, clip.language).steps if step.kind != "equal"]
    found = ", ".join(f"{step.reference} → {step.hypothesis}" for step in changed) or "nothing changes"
    return found, "" if better < worse else f"{clip.context!r} as context does not bring its spelling: {found}"


def _harmless(ears: TranscriptCache, clip: Clip, ask: SmokeRequest) -> tuple[str, str]:
    """Hotwords that nobody says change nothing and are not written."""
    alone, heard = ears.alone(clip), ears.hear(ask)
    written = [word for word in WORDS.split(", ") if word.casefold() in heard.text.casefold()]
    if written:
        return "", f"{', '.join(written)} is in the text, which only the context holds"
    return "the text stays", difference(alone, heard)


def _silent(ears: TranscriptCache, ask: SmokeRequest) -> tuple[str, str]:
    """Silence gives no text, whatever the context."""
    heard = ears.hear(ask)
    return heard.text or "(nothing)", f"text in silence: {heard.text!r}" if heard.text else ""


def _together(ears: TranscriptCache, clips: Sequence[Clip]) -> tuple[str, str]:
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


def _other(alone: ParsedTranscript, together: ParsedTranscript) -> str:
    if alone.language != together.language:
        return f"language {together.language} instead of {alone.language}"
    return difference(alone, together)


@dataclass(frozen=True)
class Cases:
    """`judged` are clips whose words are compared, `missing` what is said of those that are not there, `sounds` what
    the checks beyond the clips hear, one clip or more."""

    judged: tuple[Clip, ...]
    missing: tuple[ClipVerdict, ...]
    sounds: tuple[Clip, ...]


def cases(settings: Settings, model: str) -> Cases:
    """The clips for a model, by the name that the settings or a server give it. Fetches official ones that are not
    there, which fails in words."""
    if model == DEMO:
        clips = tuple(bundled_clips())
        return Cases(clips, (), clips)
    known = catalog.load()
    return official(known.clips, place(settings, known).clips)


def official(clips: tuple[catalog.RemoteClip, ...], directory: Path) -> Cases:
    """The official clips. Without them, the checks hear bundled speech, of which they do not compare the words with
    anything but itself."""
    fault = official_clips.fetch_clips(clips, directory)
    absent = official_clips.missing_clips(clips, directory) if fault else []
    judged = tuple(Clip(directory / clip.name, clip.language, clip.text) for clip in clips if clip not in absent)
    missing = tuple(_missing(clip, directory, fault) for clip in absent)
    speech = (clip for clip in bundled_clips() if clip.language and not clip.context)
    return Cases(judged, missing, judged or tuple(speech))


def _missing(clip: catalog.RemoteClip, directory: Path, fault: str) -> ClipVerdict:
    where = f"fetch {clip.url} and put it into {shown(directory)} ({clip.record}), or invoke fetch-weights"
    return ClipVerdict(
        clip.name, 0.0, clip.language, None, clip.text, "", 1.0, 0.0, f"is not there, and not to be had: {fault}", where
    )


def steps(hearing: SmokeBackend, cases: Cases) -> list[Step]:
    """What is to be done, in order. The first transcription pays for warming up, so no clip is timed by it."""
    ears = TranscriptCache(hearing)
    return [
        partial(_warmed_up(ears, cases).made, ears),
        *(partial(_known, verdict) for verdict in cases.missing),
        *(partial(judge, ears, clip) for clip in cases.judged),
        *(partial(trial.made, ears) for trial in trials(ears, cases.sounds)),
    ]


def run(todo: list[Step], hearing: SmokeBackend, clock: RunClock, *, on_outcome: Callable[[Outcome], object]) -> Smoke:
    """Take all steps, or those before Ctrl-C; `on_outcome` hears of each."""
    found: list[Outcome] = []
    ended = COMPLETE
    try:
        for step in todo:
            found.append(step())
            on_outcome(found[-1])
    except KeyboardInterrupt:
        ended = f"interrupted after {len(found)} of {len(todo)} steps"
    return Smoke(
        head=clock.head(SMOKE, hearing.where, ended=ended),
        passed=ended == COMPLETE and all(outcome.passed for outcome in found),
        verdicts=tuple(outcome for outcome in found if isinstance(outcome, ClipVerdict)),
        checks=tuple(outcome for outcome in found if isinstance(outcome, SmokeCheck)),
    )


def _warmed_up(ears: TranscriptCache, cases: Cases) -> Trial:
    """The first transcription, which is not remembered."""
    clip = cases.sounds[0]
    ask = SmokeRequest(clip.path)

    def trying() -> tuple[str, str]:
        started = time.perf_counter()
        ears.hear(ask)
        return f"{time.perf_counter() - started:.2f} s", ""

    return Trial("warm-up", clip.path.name, ask, trying)


def _known(verdict: ClipVerdict) -> ClipVerdict:
    return verdict
