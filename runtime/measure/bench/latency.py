"""How long one clip takes, from the file's bytes to its text, and how much of that each stage takes.

All is measured by turns, each in passes of its own. The whole goes through the engine's queue, and where the model is
in this process waits for the device once a token; the stream is the same, heard token by token; the split, which needs
the model in this process, goes without the queue and waits for the device after each stage.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from env.errors import KitError
from runtime.measure.bench import Bench, Found
from runtime.measure.bench.attempts import FAILURES, absent, cut_short, timed
from runtime.measure.bench.clip import chosen, only
from runtime.measure.figures import figure
from runtime.transcriber import Prepared, Request, Transcriber

if TYPE_CHECKING:
    from runtime.measure.bench.stages import Split


@dataclass
class Passes:
    """What was measured so far: seconds of the whole, pairs of the stream's, to the first token and from there to the
    end, and the stages. `truncated`: the last answer was cut off."""

    wholes: list[float] = field(default_factory=list)
    streams: list[tuple[float, float]] = field(default_factory=list)
    splits: "list[Split]" = field(default_factory=list)
    truncated: bool = False


def measure(bench: Bench) -> Iterator[Found]:
    """The part `latency`. Raises KitError for a clip that is silent or cannot be read."""
    transcriber, plan = bench.transcriber, bench.plan
    path = chosen(transcriber.settings, plan.clip)
    prepared = transcriber.prepare(Request(path))
    if not prepared.spoken:
        only(prepared)
    reasons = dict(_hindrances(transcriber, prepared))
    for what, error in reasons.items():
        yield absent(what, error)
    passes = Passes()
    try:
        for number in range(plan.warmups + plan.runs):
            bench.tell(f"latency: {number + 1} of {plan.warmups + plan.runs}")
            _pass(transcriber, path.read_bytes(), passes, reasons)
    except FAILURES as error:
        yield absent("latency", error)
        return
    yield from _figures(passes, prepared.audio.seconds, plan.warmups)
    yield from cut_short("latency/whole-text", passes.truncated, transcriber.settings)


def _hindrances(transcriber: Transcriber, prepared: Prepared) -> Iterator[tuple[str, KitError]]:
    """What cannot be measured of this clip, or with this engine, and why."""
    for what, look in (
        ("latency/first-token", lambda: only(prepared)),
        ("latency/split", lambda: (only(prepared), transcriber.loaded)),
    ):
        try:
            look()
        except KitError as error:
            yield what, error


def _pass(transcriber: Transcriber, file: bytes, passes: Passes, hindered: dict[str, KitError]) -> None:
    seconds, whole = timed(transcriber.device, lambda: transcriber.transcribe(file))
    passes.wholes.append(seconds)
    passes.truncated = whole.truncated
    if "latency/first-token" not in hindered:
        passes.streams.append(_streamed(transcriber, file))
    if "latency/split" not in hindered:
        from runtime.measure.bench.stages import split  # torch, which not every engine needs here

        passes.splits.append(split(transcriber, file))


def _streamed(transcriber: Transcriber, file: bytes) -> tuple[float, float]:
    """Seconds from the file's bytes to the first token, whichever it is, and from there to the end."""
    began = time.perf_counter()
    (decoding,) = transcriber.engine.submit(transcriber.prepare(Request(file)).spoken)
    next(iter(decoding), None)
    first = time.perf_counter()
    decoding.result()
    return first - began, time.perf_counter() - first


def _figures(passes: Passes, audio_seconds: float, warmups: int) -> Iterator[Found]:
    wholes, streams, splits = passes.wholes[warmups:], passes.streams[warmups:], passes.splits[warmups:]
    yield figure("latency/total", wholes, warmups=warmups)
    yield figure("latency/rtf", [seconds / audio_seconds for seconds in wholes], warmups=warmups)
    if streams:
        first, rest = zip(*streams, strict=True)
        yield figure("latency/first-token", first, warmups=warmups)
        yield figure("latency/rest", rest, warmups=warmups)
    if splits:
        from runtime.measure.bench import stages

        yield from stages.figures(splits, warmups)
