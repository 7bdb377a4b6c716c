"""How long one clip takes, from the file's bytes to its text, and how much of that each stage takes.

The whole and the split are measured by turns, each in passes of its own: the whole goes through the engine's queue and
waits for the device once a token; the split goes without the queue and waits for the device after each stage.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from runtime.engines import Decoded, greedy
from runtime.errors import KitError
from runtime.measure.bench import Absent, Bench, Found
from runtime.measure.bench.attempts import FAILURES, absent, cut_short, timed
from runtime.measure.bench.clip import chosen, only
from runtime.measure.figures import figure
from runtime.transcriber import Request, Transcriber

# Audio: from bytes to samples and prompt. Encoder: until the audio is in its places in the prompt. Prefill: until the
# first token is read. Tokens: until the last is. Text: until it is the transcript's.
STAGES = ("audio", "features", "encoder", "prefill", "tokens", "text")


@dataclass(frozen=True)
class Split:
    """The seconds of each of STAGES, the steps of the decoder after the prefill, which are for the token that ends the
    text, too, the tokens without that one, and their text."""

    seconds: tuple[float, ...]
    steps: int
    count: int
    text: str


def measure(bench: Bench) -> Iterator[Found]:
    """The part `latency`. Raises KitError for a clip that is silent or cannot be read."""
    transcriber, plan = bench.transcriber, bench.plan
    path = chosen(transcriber.settings, plan.clip)
    prepared, splitting = transcriber.prepare(Request(path)), True
    try:
        only(prepared)
    except KitError as error:
        if not prepared.spoken:
            raise
        splitting = False
        yield absent("latency/split", error)
    file, wholes, splits, truncated = path.read_bytes(), list[float](), list[Split](), False
    try:
        for number in range(plan.warmups + plan.runs):
            bench.tell(f"latency: {number + 1} of {plan.warmups + plan.runs}")
            seconds, (_, truncated) = timed(transcriber.device, lambda: _whole(transcriber, file))
            wholes.append(seconds)
            splits += [split(transcriber, file)] if splitting else []
    except FAILURES as error:
        yield absent("latency", error)
        return
    del wholes[: plan.warmups], splits[: plan.warmups]
    yield figure("latency/total", wholes, warmups=plan.warmups)
    yield figure("latency/rtf", [seconds / prepared.audio.seconds for seconds in wholes], warmups=plan.warmups)
    if splits:
        yield from _stages(splits, plan.warmups)
    yield from cut_short("latency/whole-text", truncated, transcriber.settings)


@torch.inference_mode()
def split(transcriber: Transcriber, file: bytes) -> Split:
    """Transcribe a file of one utterance, stage by stage, with the engine's own functions."""
    loaded, laps = transcriber.loaded, [time.perf_counter()]

    def lap() -> None:
        transcriber.device.synchronize()
        laps.append(time.perf_counter())

    prepared = transcriber.prepare(Request(file))
    utterance = only(prepared)
    lap()
    inputs = greedy.features(loaded, [utterance])
    lap()
    embedded = greedy.embed(loaded, inputs)
    lap()
    rows = greedy.prefill(loaded, embedded)
    tokens = rows.read()
    lap()
    while tokens[-1] not in loaded.end_tokens and len(tokens) < utterance.max_new_tokens:
        rows.step()
        tokens += rows.read()
    lap()
    steps, truncated = len(tokens) - 1, tokens[-1] not in loaded.end_tokens
    if not truncated:
        tokens.pop()
    decoded = Decoded(tuple(tokens), transcriber.text(tokens), truncated)
    text = prepared.joined(prepared.heard(cut, decoded) for cut in prepared.cuts).text
    lap()
    return Split(tuple(after - before for before, after in itertools.pairwise(laps)), steps, len(tokens), text)


def _whole(transcriber: Transcriber, file: bytes) -> tuple[str, bool]:
    """The text of a file, and whether the limit of tokens cut it off."""
    transcript = transcriber.transcribe(file)
    return transcript.text, transcript.truncated


def _stages(splits: list[Split], warmups: int) -> Iterator[Found]:
    """The stages of all passes, and the sums of each pass's."""
    for number, name in enumerate(STAGES):
        yield figure(f"latency/{name}", [one.seconds[number] for one in splits], warmups=warmups)
    tokens = STAGES.index("tokens")
    if all(one.steps for one in splits):
        yield figure("latency/token", [one.seconds[tokens] / one.steps for one in splits], warmups=warmups)
    else:
        yield Absent("latency/token", "the first token ended the text")
    yield figure("latency/split", [sum(one.seconds) for one in splits], warmups=warmups)
    yield figure("latency/count", [one.count for one in splits], warmups=warmups)
