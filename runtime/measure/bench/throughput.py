"""How much audio per second batches of one utterance bring, from samples to text, and how much of batch 1's speed each
row of them keeps.

What bounds them is the device's memory, not ASR_MAX_BATCH or ASR_BATCH_AUDIO_SECONDS. An engine that has the model in
another process is handed as many utterances at once, and schedules them by itself.
"""

import statistics
from collections.abc import Iterator, Sequence

from runtime.engines import Decoded, Utterance
from runtime.measure.bench import Absent, Bench, Found
from runtime.measure.bench.attempts import ascending, cut_short, timed
from runtime.measure.bench.clip import chosen, utterance
from runtime.measure.figures import figure
from runtime.transcriber import Transcriber

RUNS, WARMUPS = 5, 1  # of each batch, unless the plan has fewer


def measure(bench: Bench) -> Iterator[Found]:
    """The part `throughput`. Raises KitError for a clip that is silent, cut into several utterances, or unreadable."""
    transcriber, plan = bench.transcriber, bench.plan
    runs, warmups = min(plan.runs, RUNS), min(plan.warmups, WARMUPS)
    one = utterance(transcriber, chosen(transcriber.settings, plan.clip))
    alone: float | None = None  # the speed of batch 1
    truncated = False

    def measured(size: int) -> Iterator[Found]:
        nonlocal alone, truncated
        taken: list[float] = []
        for number in range(warmups + runs):
            bench.tell(f"throughput: batch of {size}, {number + 1} of {warmups + runs}")
            seconds, decoded = timed(transcriber.device, lambda: together(transcriber, [one] * size))
            taken.append(seconds)
            truncated |= any(answer.truncated for answer in decoded)
        del taken[:warmups]
        speeds = [size * one.seconds / seconds for seconds in taken]
        if size == 1:
            alone = statistics.median(speeds)
        yield figure("throughput/seconds", taken, at=size, warmups=warmups)
        yield figure("throughput/speed", speeds, at=size, warmups=warmups)
        if alone:
            shares = [speed / size / alone for speed in speeds]
            yield figure("throughput/efficiency", shares, at=size, warmups=warmups)

    yield from ascending("throughput", plan.batches, transcriber.device, measured)
    yield from cut_short("throughput/whole-text", truncated, transcriber.settings)
    if alone is None:
        yield Absent("throughput/efficiency", "batch 1, which it refers to, was not measured", "have 1 among --batches")


def together(transcriber: Transcriber, utterances: Sequence[Utterance]) -> list[Decoded]:
    """What the engine makes of so many at once; where the model is in this process, in this thread and without the
    engine's queue. Raises what the model raises."""
    if transcriber.engine.loaded is None:
        return [decoding.result() for decoding in transcriber.engine.submit(utterances)]
    from runtime.engines.stream import Stream  # torch, which not every engine needs here
    from runtime.engines.transformers import decode_together

    streams = [Stream(one) for one in utterances]
    decode_together(transcriber.loaded, streams)
    return [stream.result() for stream in streams]
