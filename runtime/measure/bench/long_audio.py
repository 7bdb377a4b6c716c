"""How long many minutes of audio take: the bundled clips with pauses, cut, decoded in batches and joined, as any audio
is."""

from collections.abc import Iterator
from functools import partial

from runtime.audio import Audio
from runtime.measure.bench import Absent, Bench, Found
from runtime.measure.bench.attempts import FAILURES, absent, cut_short, timed
from runtime.measure.figures import figure
from runtime.measure.speech import joined
from runtime.transcriber import Failure, Request
from runtime.transcript import Transcript

RUNS = 5  # of each length, unless the plan has fewer
ENOUGH = 60.0  # seconds; a length that has taken so long is not measured again


def measure(bench: Bench) -> Iterator[Found]:
    """The part `long`. There is no warm-up, as every segment but the first few comes after one."""
    settings, truncated = bench.transcriber.settings, False
    for minutes in bench.plan.minutes:
        what = f"long@{minutes:g}"
        if 60 * minutes > settings.max_audio_seconds:
            reason = f"lasts {60 * minutes:g} s, and ASR_MAX_AUDIO_SECONDS={settings.max_audio_seconds:g} is the limit"
            yield Absent(what, reason, "raise it")
            continue
        sound = Audio(joined(60 * minutes), f"{minutes:g} minutes of speech")
        taken: list[float] = []
        try:
            while len(taken) < min(RUNS, bench.plan.runs) and sum(taken) < ENOUGH:
                seconds, transcript = timed(bench.transcriber.device, partial(_transcribed, bench, sound))
                taken.append(seconds)
                truncated |= transcript.truncated
        except FAILURES as error:
            yield absent(what, error)
            continue
        yield figure("long/seconds", taken, at=minutes)
        yield figure("long/rtf", [seconds / sound.seconds for seconds in taken], at=minutes)
        yield figure("long/speed", [sound.seconds / seconds for seconds in taken], at=minutes)
    yield from cut_short("long/whole-text", truncated, settings)


def _transcribed(bench: Bench, sound: Audio) -> Transcript:
    done = 0.0

    def tell(seconds: float) -> None:
        nonlocal done
        done += seconds
        bench.tell(f"long audio: {done:.0f} of {sound.seconds:.0f} s")

    (outcome,) = bench.transcriber.transcribe_all([Request(sound)], on_segment=tell)
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome
