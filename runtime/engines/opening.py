"""The engine that the settings ask for."""

from collections.abc import Sequence
from pathlib import Path

from env.settings import Settings
from env.sources import exports
from runtime.engines import Engine, Observer
from runtime.model import checkpoint as checkpoint_files
from runtime.model import device


def create(settings: Settings, directory: Path, observers: Sequence[Observer]) -> Engine:
    """An engine for the checkpoint in a directory, not started; `observers` will hear it.

    Raises KitError where the checkpoint is not whole, or the device cannot be used.
    """
    if settings.engine_name == "vllm":
        device.keep_torch_npu_out()  # the tokenizer's package imports torch
        from runtime.engines.vllm import opening

        return opening.create(settings, directory, observers)
    checkpoint_files.check(directory)  # before the device, which takes seconds to open
    where = device.open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile)
    from runtime.engines.transformers import TransformersEngine
    from runtime.model import load  # torch, which the device must precede

    return TransformersEngine(
        load.load(directory, device=where, dtype=settings.dtype),
        max_batch=settings.max_batch,
        batch_audio_seconds=settings.batch_audio_seconds,
        batch_wait_seconds=settings.batch_wait_ms / 1000,
        observers=observers,
    )
