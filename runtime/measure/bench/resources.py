"""Loading and unloading the model: how long it takes, and what memory is held before, meanwhile and after."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from env.errors import KitError
from env.settings import Settings
from env.sources import exports
from runtime.audio import Audio
from runtime.engines import Observer, Utterance
from runtime.measure.bench.in_process import FAILURES, absent, ascending, chosen, cut_short, timed, together, utterance
from runtime.measure.bench.record import Absent, Bench, Found
from runtime.measure.statistics import figure
from runtime.measure.synthetic_audio import joined
from runtime.model.checkpoint import Checkpoint
from runtime.model.device import Device, keep_torch_npu_out, open_device, trim_heap
from runtime.transcriber import FailedRequest, Request, Transcriber, model_directory, open_transcriber
from runtime.transcript import Transcript

WEIGHTS = "*.safetensors"
HOST = Device("cpu")  # this process

ELSEWHERE = "vLLM takes its share of the memory when it starts, whatever it is given later"

RUNS = 5  # of each length, unless the plan has fewer
ENOUGH = 60.0  # seconds; a length that has taken so long is not measured again


class Telling(Observer):
    """Tells how far an engine is that takes long to start."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def starting(self, stage: str) -> None:
        """A line."""
        self._tell(f"loading: {stage}")


@contextmanager
def opened(
    settings: Settings, found: list[Found], tell: Callable[[str], None] = lambda _: None
) -> Iterator[Transcriber]:
    """Load the model as `open_transcriber` does, for a block after which its weights are gone, whoever still holds the
    transcriber. Figures of both are added to `found`, the last when the block has ended, however it did. `tell` hears
    how far an engine is that takes long to start.

    Opening the device and importing torch are not part of the time; starting vLLM is. Raises what `open_transcriber`
    raises.
    """
    directory = model_directory(settings)
    before = _held(_prepared(settings), "before")
    began = time.perf_counter()
    with ExitStack() as afterwards, open_transcriber(settings, observers=[Telling(tell)]) as transcriber:
        device = transcriber.device
        device.synchronize()
        seconds = time.perf_counter() - began
        afterwards.callback(_unload, transcriber, found)
        found += [figure("loading/seconds", [seconds]), *before]
        if weights := sum(file.stat().st_size for file in directory.glob(WEIGHTS)):
            found.append(figure("memory/weights", [weights]))
        try:
            first, _ = timed(device, lambda: transcriber.transcribe(chosen(settings)))
            found.append(figure("loading/first", [first]))
        except FAILURES as error:
            found.append(absent("loading/first", error))
        found += _held(device, "loaded")  # not before, as a CPU's weights are files that are read when they are used
        found += _total(device)
        yield transcriber


def _prepared(settings: Settings) -> Device | None:
    """The device of the model in this process, opened, with what loading it imports; None where the model will be in
    another process."""
    if settings.engine_name == "vllm":
        keep_torch_npu_out()
        return None
    Checkpoint.open(model_directory(settings))  # before the device, which takes seconds to open
    device = open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile)
    from runtime.model import load  # torch, which the device must precede

    load.backend()
    return device


def _unload(transcriber: Transcriber, found: list[Found]) -> None:
    if loaded := transcriber.engine.loaded:
        loaded.model.to_empty(device="meta")  # no memory for weights, as others hold the model itself
        found += _held(loaded.device, "unloaded")
    else:
        found += _held(None, "unloaded")
        reason = "the model was in other processes, of which those that were started have ended"
        found.append(Absent("memory/unloaded", reason, "npu-smi info tells what an NPU holds"))


def _total(device: Device) -> list[Found]:
    """All the memory that the device has, if it tells."""
    if not device.reports_memory:
        return []
    return [figure("memory/device-total", [device.memory().total])]


def _held(device: Device | None, when: str) -> list[Found]:
    """What tensors hold on the device, and the process on the host, without what is only kept for the next. Of a
    device that does not tell, why not; None: there is none."""
    gc.collect()
    trim_heap()
    sizes: list[Found] = [figure(f"memory/host-{when}", [HOST.memory().used])]
    if device is None:
        return sizes
    device.empty_cache()
    try:
        return [figure(f"memory/{when}", [device.memory().used]), *sizes]
    except KitError as error:
        return [absent(f"memory/{when}", error), *sizes]


def measure_memory(bench: Bench) -> Iterator[Found]:
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


def measure_long_audio(bench: Bench) -> Iterator[Found]:
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
    if isinstance(outcome, FailedRequest):
        raise outcome.error
    return outcome
