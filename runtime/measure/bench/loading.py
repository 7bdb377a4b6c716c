"""Loading and unloading the model: how long it takes, and what memory is held before, meanwhile and after."""

import gc
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from env.loading import exports
from env.settings import Settings
from runtime import checkpoint
from runtime.checkpoint import Loaded
from runtime.device import Device, open_device, trim_heap
from runtime.measure.bench import Found
from runtime.measure.bench.attempts import FAILURES, absent, timed
from runtime.measure.bench.clip import chosen
from runtime.measure.figures import Figure, figure
from runtime.transcriber import Transcriber, model_directory, open_transcriber

WEIGHTS = "*.safetensors"


@contextmanager
def opened(settings: Settings, found: list[Found]) -> Iterator[Transcriber]:
    """Load the model as `open_transcriber` does, for a block after which its weights are gone, whoever still holds the
    transcriber. Figures of both are added to `found`, the last when the block has ended, however it did.

    Opening the device and importing torch are not part of the time. Raises what `open_transcriber` raises.
    """
    directory = model_directory(settings)
    checkpoint.check(directory)  # before the device, which takes seconds to open
    device = open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile)
    checkpoint.backend()
    before = _held(device, "before")
    began = time.perf_counter()
    with ExitStack() as afterwards, open_transcriber(settings) as transcriber:
        device.synchronize()
        seconds = time.perf_counter() - began
        afterwards.callback(_unload, transcriber.loaded, found)
        found += [
            figure("loading/seconds", [seconds]),
            figure("memory/weights", [sum(file.stat().st_size for file in directory.glob(WEIGHTS))]),
            figure("memory/device-total", [device.memory().total]),
            *before,
        ]
        try:
            first, _ = timed(device, lambda: transcriber.transcribe(chosen(settings)))
            found.append(figure("loading/first", [first]))
        except FAILURES as error:
            found.append(absent("loading/first", error))
        found += _held(device, "loaded")  # not before, as a CPU's weights are files that are read when they are used
        yield transcriber


def _unload(loaded: Loaded, found: list[Found]) -> None:
    loaded.model.to_empty(device="meta")  # no memory for weights, as others hold the model itself
    found += _held(loaded.device, "unloaded")


def _held(device: Device, when: str) -> list[Figure]:
    """What tensors hold on the device, and the process on the host, without what is only kept for the next."""
    gc.collect()
    device.empty_cache()
    trim_heap()
    sizes = {when: device.memory().used, f"host-{when}": Device("cpu").memory().used}
    return [figure(f"memory/{name}", [size]) for name, size in sizes.items()]
