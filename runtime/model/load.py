"""Load a Qwen3-ASR checkpoint without the packages that qwen-asr itself insists on."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from env.errors import KitError
from runtime.model.checkpoint import MODEL_TYPE, Checkpoint, CheckpointError
from runtime.model.device import Device, OutOfMemoryError, is_out_of_memory
from runtime.model.prompt import Tokenizer, read_tokenizer


@dataclass(frozen=True)
class Loaded:
    """A loaded model on its device, with the processor and tokenizer that decoding needs."""

    model: Any
    processor: Any
    tokenizer: Tokenizer
    device: Device


def backend() -> ModuleType:
    """qwen-asr's `core.transformers_backend`, registered with transformers' Auto classes, however often it is called.

    `import qwen_asr` would import nagisa, a Japanese tokenizer that only the forced aligner needs, and so fail where
    qwen-asr was installed without its dependencies. A placeholder stands for the package while the part that the
    kit needs is imported, and is removed again, so that a later `import qwen_asr` behaves as usual.

    Raises KitError where qwen-asr is not installed.
    """
    package = "qwen_asr"
    name = f"{package}.core.transformers_backend"
    if name in sys.modules or package in sys.modules:
        module = importlib.import_module(name)
    else:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            raise KitError("qwen-asr", "is not installed", "make install, or python env/install.py")
        placeholder = ModuleType(package)
        placeholder.__path__ = list(spec.submodule_search_locations)
        sys.modules[package] = placeholder
        try:
            module = importlib.import_module(name)
        finally:
            del sys.modules[package]
    _register(module)
    return module


def _register(module: ModuleType) -> None:
    from transformers import AutoConfig, AutoModel, AutoProcessor

    AutoConfig.register(MODEL_TYPE, module.Qwen3ASRConfig, exist_ok=True)
    AutoModel.register(module.Qwen3ASRConfig, module.Qwen3ASRForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(  # type: ignore[no-untyped-call]
        module.Qwen3ASRConfig, module.Qwen3ASRProcessor, exist_ok=True
    )


def load(checkpoint: Checkpoint, *, device: Device, dtype: str) -> Loaded:
    """Load a checkpoint onto `device` in `dtype` (bfloat16, float16 or float32).

    Raises CheckpointError where the weights do not fit the architecture, OutOfMemoryError where the device has no room
    for them, KitError where qwen-asr is missing.
    """
    directory = checkpoint.directory
    backend()
    import torch
    from transformers import AutoModel, AutoProcessor

    model, report = AutoModel.from_pretrained(
        directory, dtype=getattr(torch, dtype), output_loading_info=True, local_files_only=True
    )
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[fault]:
            names = ", ".join(map(str, sorted(report[fault])[:3]))
            reason = f"weights do not fit the architecture: {len(report[fault])} {fault.replace('_', ' ')} ({names} …)"
            raise CheckpointError(str(directory), reason, "fetch the weights again")
    # fix_mistral_regex: as qwen-asr loads it; without, transformers warns about a fault this tokenizer does not have
    processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
        directory, fix_mistral_regex=True, local_files_only=True
    )
    return Loaded(_placed(model, device), processor, read_tokenizer(checkpoint), device)


def _placed(model: Any, device: Device) -> Any:
    """Move the model to the device, in evaluation mode. Raises OutOfMemoryError where it does not fit."""
    try:
        return model.to(device.name).eval()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        needed = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        reason = f"no room for {needed / 2**20:.0f} MiB of weights ({error})"
        raise OutOfMemoryError(device.name, reason, "see which process holds the memory: npu-smi info") from None
