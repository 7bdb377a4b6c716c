"""Loading and unloading the model: how long it takes, and what memory is held before, meanwhile and after."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from env.errors import KitError
from env.settings import Settings
from env.sources import exports
from runtime.engines import Observer
from runtime.measure.bench import Absent, Found
from runtime.measure.bench.attempts import FAILURES, absent, timed
from runtime.measure.bench.clip import chosen
from runtime.measure.figures import figure
from runtime.model import checkpoint as checkpoint_files
from runtime.model.device import Device, keep_torch_npu_out, open_device, trim_heap
from runtime.transcriber import Transcriber, model_directory, open_transcriber

WEIGHTS = "*.safetensors"
HOST = Device("cpu")  # this process


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
    checkpoint_files.check(model_directory(settings))  # before the device, which takes seconds to open
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
    if not device.tells_memory:
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
