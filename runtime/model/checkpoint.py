"""The files of a Qwen3-ASR checkpoint's directory: are they all there, whole, and of this architecture?"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env.errors import KitError

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

FETCH_AGAIN = "fetch the weights again, or from another hub: ASR_HUB"


class CheckpointError(KitError):
    """The directory holds no whole Qwen3-ASR checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been checked, and what its small files say: `config` is config.json, `generation`
    generation_config.json."""

    directory: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Open a checkpoint, whose shards are checked against their headers.

        Raises CheckpointError where it is missing, of another architecture, or incomplete: a file or a shard absent,
        broken, or shorter than its header says.
        """
        opened = cls.open_without_weights(directory)
        for shard in _shards(directory):
            _check_shard(shard)
        return opened

    @classmethod
    def open_without_weights(cls, directory: Path) -> "Checkpoint":
        """Open a checkpoint whose shards need not be there. Raises CheckpointError as `open` does."""
        content = _small_files(directory)
        return cls(directory, content["config.json"], content["generation_config.json"])

    def chat_template(self) -> str:
        """Read the chat template. Raises CheckpointError where its file is broken."""
        path = next(path for name in CHAT_TEMPLATES if (path := self.directory / name).is_file())
        if path.suffix != ".json":
            try:
                return path.read_text(encoding="utf-8")
            except (ValueError, OSError) as error:
                raise CheckpointError(str(path), f"cannot be read: {error}", "fetch the weights again") from None
        template = read_json(path).get("chat_template")
        if not isinstance(template, str):
            raise CheckpointError(str(path), "holds no chat template", "fetch the weights again")
        return template


def _small_files(directory: Path) -> dict[str, dict[str, Any]]:
    """The content of each JSON file that a checkpoint must have, by name."""
    if not directory.is_dir():
        what = "is a file, not a directory" if directory.exists() else "no such directory"
        raise CheckpointError(str(directory), what, "set ASR_MODEL to a checkpoint's directory, or to demo")
    absent = [name for name in REQUIRED if not (directory / name).is_file()]
    if not any((directory / name).is_file() for name in CHAT_TEMPLATES):
        absent.append(CHAT_TEMPLATES[0])
    if absent:
        raise CheckpointError(str(directory), f"incomplete: {', '.join(absent)} absent", "fetch the weights again")
    content = {name: read_json(directory / name) for name in REQUIRED if name.endswith(".json")}
    if content["config.json"].get("model_type") != MODEL_TYPE:
        found = content["config.json"].get("model_type", "none named")
        raise CheckpointError(str(directory), f"another architecture: {found}, expected {MODEL_TYPE}")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object. Raises CheckpointError where it holds none."""
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
        names = sorted(set(read_json(directory / INDEX).get("weight_map", {}).values()))
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


def check_whole(directory: Path) -> None:
    """Check files and shards as `Checkpoint.open` does, and shards against their index.

    Of tensors that share memory an index may count one, so the shards may hold more bytes than its `total_size`, but
    never fewer. Raises CheckpointError.
    """
    try:
        Checkpoint.open(directory)
        if (directory / INDEX).is_file():
            _compare(directory / INDEX)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = f"a file in it is not what it should be ({type(error).__name__}: {error})"
        raise CheckpointError(str(directory), reason, FETCH_AGAIN) from None


def _compare(index: Path) -> None:
    content = json.loads(index.read_text(encoding="utf-8"))
    mapped: dict[str, str] = content["weight_map"]
    found = {name: tensors(index.parent / name) for name in sorted(set(mapped.values()))}
    astray = sorted(tensor for tensor, shard in mapped.items() if tensor not in found[shard])
    if astray:
        first = f"{astray[0]}, which {mapped[astray[0]]} does not hold"
        raise CheckpointError(str(index), f"names {len(astray)} tensors in the wrong shard: {first}", FETCH_AGAIN)
    size = sum(sum(shard.values()) for shard in found.values())
    named = (content.get("metadata") or {}).get("total_size", 0)
    if size < named:
        raise CheckpointError(str(index), f"counts {named} bytes of tensors, the shards hold {size}", FETCH_AGAIN)


def tensors(shard: Path) -> dict[str, int]:
    """The bytes of each tensor in a safetensors file, by name."""
    with shard.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    entries = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: end - start for name, (start, end) in entries.items()}
