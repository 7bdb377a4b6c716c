"""A Qwen3-ASR checkpoint directory: is it whole, and load it, without the packages that qwen-asr itself insists on."""

import importlib
import importlib.util
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime.device import Device, OutOfMemoryError, is_out_of_memory
from runtime.errors import KitError

MODEL_TYPE = "qwen3_asr"
REQUIRED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
)
CHAT_TEMPLATES = ("chat_template.json", "chat_template.jinja")  # either will do
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class CheckpointError(KitError):
    """The directory holds no whole Qwen3-ASR checkpoint."""


@dataclass(frozen=True)
class Loaded:
    """A model on its device with all that decoding needs; `languages` are those it supports, by English name."""

    model: Any
    processor: Any
    languages: tuple[str, ...]
    end_tokens: tuple[int, ...]
    pad_token: int
    device: Device


def backend() -> ModuleType:
    """qwen-asr's `core.transformers_backend`, registered with transformers' Auto classes, however often it is called.

    `import qwen_asr` would import nagisa, a Japanese tokenizer that only the forced aligner needs, and so fail where
    qwen-asr was installed without its dependencies. A bare module holds the package's place while the part that the
    kit needs is imported, and is taken away again, so that a later `import qwen_asr` behaves as ever.

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


def check(directory: Path) -> dict[str, Any]:
    """Check that the directory holds a whole checkpoint, reading headers only; returns its config.json.

    Raises CheckpointError where it is missing, of another architecture, or incomplete: a file or a shard absent, or
    shorter than its header says.
    """
    if not directory.is_dir():
        what = "is a file, not a directory" if directory.exists() else "no such directory"
        raise CheckpointError(str(directory), what, "set ASR_MODEL to a checkpoint's directory, or to demo")
    absent = [name for name in REQUIRED if not (directory / name).is_file()]
    if not any((directory / name).is_file() for name in CHAT_TEMPLATES):
        absent.append(CHAT_TEMPLATES[0])
    if absent:
        raise CheckpointError(str(directory), f"incomplete: {', '.join(absent)} absent", "fetch the weights again")
    config, *_ = [_json(directory / name) for name in REQUIRED if name.endswith(".json")]
    if config.get("model_type") != MODEL_TYPE:
        found = config.get("model_type", "none named")
        raise CheckpointError(str(directory), f"another architecture: {found}, expected {MODEL_TYPE}")
    for shard in _shards(directory):
        _check_shard(shard)
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(str(path), f"cannot be read as JSON: {error}", "fetch the weights again") from None
    if not isinstance(content, dict):
        raise CheckpointError(str(path), "holds no JSON object", "fetch the weights again")
    return content


def _shards(directory: Path) -> list[Path]:
    """The weight files, each of which exists."""
    if (directory / INDEX).is_file():
        names = sorted(set(_json(directory / INDEX).get("weight_map", {}).values()))
    else:
        names = [SINGLE]
    absent = [name for name in names if not (directory / name).is_file()]
    if absent or not names:
        missing = ", ".join(absent) or f"no shard named in {INDEX}"
        raise CheckpointError(str(directory), f"incomplete: {missing} absent", "fetch the weights again")
    return [directory / name for name in names]


def _check_shard(shard: Path) -> None:
    """Compare a shard's size with its header: 8 bytes of header length, a JSON header, then the tensors (the
    safetensors format)."""
    size = shard.stat().st_size
    with shard.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        try:
            header = json.loads(file.read(length)) if length < size else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise CheckpointError(str(shard), f"no safetensors file, or cut off ({size} bytes)", "fetch the weights again")
    tensors = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(tensors, default=0)
    if size != expected:
        raise CheckpointError(str(shard), f"has {size} bytes, its header says {expected}", "fetch the weights again")


def load(directory: Path, *, device: Device, dtype: str) -> Loaded:
    """Load a checkpoint onto `device` in `dtype` (bfloat16, float16 or float32).

    Raises CheckpointError where the checkpoint is not whole or does not fit the architecture, OutOfMemoryError where
    the device has no room for it, KitError where qwen-asr is missing.
    """
    config = check(directory)
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
    generation = _json(directory / "generation_config.json")
    ends = generation.get("eos_token_id", processor.tokenizer.eos_token_id)
    return Loaded(
        model=_placed(model, device),
        processor=processor,
        languages=tuple(config.get("support_languages") or ()),
        end_tokens=tuple(ends) if isinstance(ends, list) else (ends,),
        pad_token=generation.get("pad_token_id", processor.tokenizer.pad_token_id),
        device=device,
    )


def _placed(model: Any, device: Device) -> Any:
    """The model on the device, ready to infer."""
    try:
        return model.to(device.name).eval()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        needed = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        reason = f"no room for {needed / 2**20:.0f} MiB of weights ({error})"
        raise OutOfMemoryError(device.name, reason, "see which process holds the memory: npu-smi info") from None
