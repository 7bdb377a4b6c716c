"""Checkpoints of a real model's size with random weights, to measure time and memory where the weights are not at hand.

What such a model hears is noise, and decoding runs to the limit of tokens. So that none is ever taken for the real one,
its directory has the file RANDOM_WEIGHTS, and what is measured with it says so.
"""

import copy
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from env.errors import KitError, UsageError
from env.settings import DEMO, Settings
from env.sources import under_project
from runtime.model.checkpoint import CHAT_TEMPLATES, INDEX, MODEL_TYPE, REQUIRED, SINGLE
from runtime.model.load import backend
from runtime.weights import catalog

MARK = "RANDOM_WEIGHTS"
DTYPES = ("bfloat16", "float16", "float32")
REMARK = """\
These weights are random, made by `invoke dev.random-weights` on {date}.
What the model hears is noise: it is for measuring time and memory alone.
"""
SHARD = 1 << 30  # bytes in a file; what is held in memory at a time
SPARE = 64 << 20  # bytes left on the disk


@dataclass(frozen=True)
class Blueprint:
    """What will be written: config.json's content, files to be copied, and the tensors' names by shard. `size` in
    bytes; `model` has all parameters, but no memory for them."""

    config: dict[str, Any]
    copied: tuple[Path, ...]
    shards: tuple[tuple[str, ...], ...]
    size: int
    model: Any = field(repr=False)

    @property
    def tensors(self) -> int:
        """How many, of which tied ones count twice, as in the published checkpoints."""
        return sum(map(len, self.shards))


def shown(settings: Settings) -> str:
    """ASR_MODEL, with a remark where the weights in its directory are random."""
    random = settings.model != DEMO and (under_project(settings.model) / MARK).exists()
    return f"{settings.model} (random weights)" if random else settings.model


def draw(config: Path, tokenizer: Path, *, dtype: str) -> Blueprint:
    """The blueprint for a config.json, or the directory of one, with the tokenizer's and processor's files of another.

    Raises UsageError where they are no Qwen3-ASR model's or do not fit together, KitError without qwen-asr.
    """
    if dtype not in DTYPES:
        raise UsageError("--dtype", f"{dtype!r}, expected {', '.join(DTYPES)}")
    described = _config(config / "config.json" if config.is_dir() else config)
    described["thinker_config"]["dtype"] = dtype
    copied = _small_files(tokenizer)
    _check_vocabulary(described, tokenizer)
    model = _without_memory(described, dtype, config)
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in model.state_dict().items()}
    return Blueprint(described, copied, tuple(_shards(sizes)), sum(sizes.values()), model)


def write(blueprint: Blueprint, output: Path, *, on_bytes: Callable[[int], None] = lambda _: None) -> None:
    """Write the checkpoint, whole or not at all; weights are always the same for the same architecture and dtype.

    Raises UsageError where `output` exists or has a published model's name, KitError where the disk has no room.
    """
    _check_output(output, blueprint.size)
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(blueprint, partial, on_bytes)
        partial.rename(output)
    except OSError as error:
        raise KitError(str(output), f"cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(str(path), f"is no JSON file: {error}") from None
    kind = found.get("model_type") if isinstance(found, dict) else None
    if kind != MODEL_TYPE or not isinstance(found.get("thinker_config"), dict):
        raise UsageError(str(path), f"describes another architecture: {kind}, expected {MODEL_TYPE}")
    return dict(found)


def _small_files(directory: Path) -> tuple[Path, ...]:
    wanted = [directory / name for name in REQUIRED if name != "config.json"]
    templates = [directory / name for name in CHAT_TEMPLATES if (directory / name).is_file()]
    absent = [path.name for path in wanted if not path.is_file()] + ([] if templates else [CHAT_TEMPLATES[0]])
    if absent:
        raise UsageError(str(directory), f"has no {', '.join(absent)}", "--tokenizer names the directory that has them")
    return (*wanted, *templates)


def _check_vocabulary(config: dict[str, Any], tokenizer: Path) -> None:
    """Raises UsageError where the tokenizer has tokens that the model has no place for."""
    try:
        vocabulary = json.loads((tokenizer / "vocab.json").read_text(encoding="utf-8"))
        added = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))["added_tokens_decoder"]
        count = 1 + max([*vocabulary.values(), *map(int, added)])
        places = config["thinker_config"]["text_config"]["vocab_size"]
    except (ValueError, KeyError, AttributeError) as error:
        raise UsageError(str(tokenizer), f"has files that cannot be read ({type(error).__name__}: {error})") from None
    if count > places:
        raise UsageError("--tokenizer", f"{tokenizer} has {count} tokens, the model of --config {places}")


def _without_memory(config: dict[str, Any], dtype: str, path: Path) -> Any:
    classes = backend()
    import torch

    try:
        with torch.device("meta"):
            model = classes.Qwen3ASRForConditionalGeneration(classes.Qwen3ASRConfig(**copy.deepcopy(config)))
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        raise UsageError(str(path), f"describes no model that can be made ({type(error).__name__}: {error})") from None
    return model.to(getattr(torch, dtype))


def _shards(sizes: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """The names in order, as many together as fill no more than a shard, or one."""
    names: list[str] = []
    held = 0
    for name, size in sizes.items():
        if names and held + size > SHARD:
            yield tuple(names)
            names, held = [], 0
        names.append(name)
        held += size
    yield tuple(names)


def _check_output(output: Path, size: int) -> None:
    if output.exists():
        raise UsageError(str(output), "exists already", "name another --output, or remove it")
    published = {repo.partition("/")[2] for repo in catalog.load().models}
    if output.name in published:
        raise UsageError(str(output), "has the name of the published model", f"name it random-{output.name}")
    existing = next(folder for folder in output.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < size + SPARE:
        reason = f"needs {(size + SPARE) / 2**30:.1f} GiB, {existing} has {free / 2**30:.1f} GiB free"
        raise KitError(str(output), reason, "make room, or name an --output on a larger disk")


def _write(blueprint: Blueprint, directory: Path, on_bytes: Callable[[int], None]) -> None:
    from safetensors.torch import save_file

    mapped: dict[str, str] = {}
    count = len(blueprint.shards)
    for number, names in enumerate(blueprint.shards, 1):
        shard = SINGLE if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
        save_file(dict(_tensors(blueprint.model, names, on_bytes)), directory / shard, metadata={"format": "pt"})
        (directory / shard).chmod(directory.stat().st_mode & 0o666)  # the library's are for their owner alone
        mapped |= dict.fromkeys(names, shard)
    if count > 1:
        index = {"metadata": {"total_size": blueprint.size}, "weight_map": mapped}
        (directory / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    for path in blueprint.copied:
        shutil.copyfile(path, directory / path.name)
    config = json.dumps({**blueprint.config, "random_weights": True}, indent=1, ensure_ascii=False)
    (directory / "config.json").write_text(config + "\n", encoding="utf-8")
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    (directory / MARK).write_text(REMARK.format(date=date), encoding="utf-8")


def _tensors(model: Any, names: tuple[str, ...], on_bytes: Callable[[int], None]) -> Iterator[tuple[str, Any]]:
    """Each as the model's own classes begin it. A module's draws depend on its name alone, so tied ones are alike."""
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first.setdefault(id(parameter), name)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    made: tuple[str, Any] = ("", None)
    for name in names:
        path, _, attribute = first[id(parameters[name])].rpartition(".")
        if path != made[0]:
            made = (path, _initial(model, path))
        tensor = getattr(made[1], attribute).detach()
        on_bytes(tensor.numel() * tensor.element_size())
        yield name, tensor


def _initial(model: Any, path: str) -> Any:
    """A copy of a module, with memory and as its model begins it."""
    import torch
    from transformers import PreTrainedModel

    owner, within = model, model
    for part in path.split("."):
        within = getattr(within, part)
        owner = within if isinstance(within, PreTrainedModel) else owner
    module = copy.deepcopy(within).to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(path.encode()))
        owner._init_weights(module)
    return module
