"""The most memory that batches of one utterance take, and segments of so much audio, each decoded once to its end.

Both count the weights. On a CPU, device and host are the same: this process.
"""

import gc
from collections.abc import Iterator, Sequence

from runtime.engines import Utterance
from runtime.measure.bench import Absent, Bench, Found
from runtime.measure.bench.attempts import ascending
from runtime.measure.bench.clip import chosen, utterance
from runtime.measure.bench.throughput import together
from runtime.measure.figures import figure
from runtime.measure.speech import joined
from runtime.model.device import Device, trim_heap
from runtime.transcriber import Transcriber

ELSEWHERE = "vLLM takes its share of the memory when it starts, whatever it is given later"


def measure(bench: Bench) -> Iterator[Found]:
    """The parts `batch-memory`, of the clip, and `length-memory`, of one segment that is not cut, however long: what is
    transcribed is cut at ASR_SEGMENT_SECONDS. Raises KitError for a clip that is silent, cut or unreadable."""
    transcriber, plan = bench.transcriber, bench.plan
    if transcriber.engine.loaded is None:
        yield Absent("memory", ELSEWHERE, "see what memory is held while the model is loaded: the part loading")
        return
    one = utterance(transcriber, chosen(transcriber.settings, plan.clip))

    def batch(size: int) -> Iterator[Found]:
        bench.tell(f"memory: batch of {size}")
        return _peaks(transcriber, "batch-memory", size, [one] * size)

    def length(seconds: float) -> Iterator[Found]:
        bench.tell(f"memory: {seconds:g} s of audio")
        segment = Utterance(joined(seconds), one.prompt, one.max_new_tokens)
        return _peaks(transcriber, "length-memory", seconds, [segment])

    yield from ascending("batch-memory", plan.batches, transcriber.device, batch)
    yield from ascending("length-memory", plan.lengths, transcriber.device, length)


def _peaks(transcriber: Transcriber, part: str, at: float, utterances: Sequence[Utterance]) -> Iterator[Found]:
    gc.collect()
    transcriber.device.empty_cache()
    trim_heap()
    places = {f"{part}/device": transcriber.device, f"{part}/host": Device("cpu")}
    possible = [quantity for quantity, device in places.items() if device.reset_peak()]
    together(transcriber, utterances)
    for quantity, device in places.items():
        if quantity in possible:
            yield figure(quantity, [device.memory().peak], at=at)
        else:
            what = f"{quantity}@{at:g}"
            yield Absent(what, "the kernel does not let a process's peak begin anew (/proc/self/clear_refs)")
