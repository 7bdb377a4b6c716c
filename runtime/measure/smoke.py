"""Does it transcribe? The bundled clips, one after another, against what was said in them."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from runtime import audio
from runtime.errors import KitError
from runtime.measure.clips import Clip
from runtime.measure.scoring import error_rate
from runtime.transcriber import Transcriber, limits

TOLERANCE = 0.1  # error rate; CPUs and NPUs round differently, and a word on the edge may tip over


@dataclass(frozen=True)
class Verdict:
    """What was made of a clip. `error_rate` is of characters for languages without spaces, else of words; `rtf` is
    seconds of work per second of audio; `fault` says why it failed, empty if it passed."""

    clip: str
    seconds: float
    expected_language: str | None
    language: str | None
    expected_text: str
    text: str
    error_rate: float
    rtf: float
    fault: str

    @property
    def passed(self) -> bool:
        """Whether language and text are what was expected."""
        return not self.fault


def run(transcriber: Transcriber, clips: list[Clip]) -> Iterator[Verdict]:
    """Transcribe the clips one at a time, after one that is not counted, because the first pays for warming up."""
    transcriber.transcribe(clips[0].path)
    for clip in clips:
        yield _judge(transcriber, clip)


def _judge(transcriber: Transcriber, clip: Clip) -> Verdict:
    started = time.perf_counter()
    try:
        sound = audio.load(clip.path, limits=limits(transcriber.settings))
        transcript = transcriber.transcribe(sound, context=clip.context)
    except KitError as error:
        return Verdict(clip.path.name, 0.0, clip.language, None, clip.text, "", 1.0, 0.0, str(error))
    elapsed = time.perf_counter() - started
    rate = error_rate(clip.text, transcript.text, clip.language)
    faults = []
    if transcript.language != clip.language:
        faults.append(f"language {transcript.language}, expected {clip.language}")
    if rate > TOLERANCE:
        faults.append(f"error rate {rate:.0%}, at most {TOLERANCE:.0%} expected")
    return Verdict(
        clip.path.name,
        transcript.seconds,
        clip.language,
        transcript.language,
        clip.text,
        transcript.text,
        rate,
        elapsed / transcript.seconds,
        "; ".join(faults),
    )


def report(transcriber: Transcriber, verdicts: list[Verdict], versions: dict[str, str]) -> dict[str, Any]:
    """The run as JSON-ready data: where it ran, with what, and every verdict."""
    device = transcriber.device
    return {
        "passed": all(verdict.passed for verdict in verdicts),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device.name,
        "device_description": device.description(),
        "why_not_npu": device.reason,
        "model": transcriber.settings.model,
        "dtype": transcriber.settings.dtype,
        "memory_bytes": asdict(device.memory()),
        "versions": versions,
        "clips": [{**asdict(verdict), "passed": verdict.passed} for verdict in verdicts],
    }
