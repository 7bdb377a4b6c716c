"""A checkpoint of a few hundred kilobytes: everything that one needs to be whole, except a model."""

import json
import random
import struct

from runtime.model.checkpoint import INDEX, MODEL_TYPE, REQUIRED

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
NEEDLESS = {
    "README.md": b"# Tiny\n",
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "configuration.json": b'{"framework": "pytorch"}',
    "assets/picture.png": b"\x89PNG",
}


def shard(tensors: dict[str, bytes]) -> bytes:
    """A safetensors file of one-byte numbers."""
    header, start = {}, 0
    for name, content in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": [start, start + len(content)]}
        start += len(content)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


def sharded(seed: int = 0, sizes: tuple[int, int] = (300_000, 200_000)) -> dict[str, bytes]:
    """Two shards of random numbers, and their index."""
    dice = random.Random(seed)
    weights = {f"layer.{number}": dice.randbytes(size) for number, size in enumerate(sizes)}
    contents = {name: shard({key: weights[key]}) for name, key in zip(SHARDS, weights, strict=True)}
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(zip(weights, SHARDS, strict=True))}
    return {**contents, INDEX: json.dumps(index).encode()}


def files(seed: int = 0) -> dict[str, bytes]:
    """All files of a repository, those among them that nobody needs."""
    small = {name: json.dumps({"name": name, "seed": seed}).encode() for name in REQUIRED}
    small["config.json"] = json.dumps({"model_type": MODEL_TYPE, "seed": seed}).encode()
    return {**small, "chat_template.json": b"{}", **sharded(seed), **NEEDLESS}
