"""Is a checkpoint directory whole: every file there, and the shards what their index says."""

import json
import struct
from pathlib import Path

from runtime.checkpoint_files import INDEX, CheckpointError, check

AGAIN = "fetch the weights again, or from another hub: ASR_HUB"


def check_whole(directory: Path) -> None:
    """Check files and shards, reading headers only; `runtime.checkpoint_files.check` says what is required.

    Of tensors that share memory an index may count one, so the shards may hold more bytes than its `total_size`, but
    never fewer. Raises CheckpointError.
    """
    try:
        check(directory)
        if (directory / INDEX).is_file():
            _compare(directory / INDEX)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = f"a file in it is not what it should be ({type(error).__name__}: {error})"
        raise CheckpointError(str(directory), reason, AGAIN) from None


def _compare(index: Path) -> None:
    content = json.loads(index.read_text(encoding="utf-8"))
    mapped: dict[str, str] = content["weight_map"]
    held = {name: tensors(index.parent / name) for name in sorted(set(mapped.values()))}
    astray = sorted(tensor for tensor, shard in mapped.items() if tensor not in held[shard])
    if astray:
        first = f"{astray[0]}, which {mapped[astray[0]]} does not hold"
        raise CheckpointError(str(index), f"names {len(astray)} tensors in the wrong shard: {first}", AGAIN)
    size = sum(sum(shard.values()) for shard in held.values())
    named = (content.get("metadata") or {}).get("total_size", 0)
    if size < named:
        raise CheckpointError(str(index), f"counts {named} bytes of tensors, the shards hold {size}", AGAIN)


def tensors(shard: Path) -> dict[str, int]:
    """The bytes of each tensor in a safetensors file, by name."""
    with shard.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    entries = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: end - start for name, (start, end) in entries.items()}
