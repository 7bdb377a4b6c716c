"""Checkpoints with random weights: of the right shapes, whole, always the same, and never taken for the real thing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from invoking import assert_refused, invoke
from reference import read_json
from safetensors.torch import load_file

from env.errors import KitError, UsageError
from env.sources import load_settings
from runtime.audio import Audio
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.measure import random_weights, records
from runtime.measure.random_weights import MARK, draw, write
from runtime.measure.synthetic_audio import joined
from runtime.model import checkpoint as checkpoint_files
from runtime.model import load
from runtime.model.checkpoint import Checkpoint
from runtime.model.device import Device
from runtime.transcriber import open_transcriber
from runtime.weights import catalog

TINY_SHARD = 1 << 20  # bytes


def made(output: Path, dtype: str = "bfloat16") -> Path:
    """A checkpoint of the demo model's shapes."""
    write(draw(DEMO_CHECKPOINT, DEMO_CHECKPOINT, dtype=dtype), output)
    return output


@pytest.mark.parametrize(("size", "tensors"), [("1.7B", 708), ("0.6B", 612)])
def test_the_real_shapes(reference: Path, size: str, tensors: int) -> None:
    config = reference / "configs" / f"Qwen3-ASR-{size}"
    blueprint = draw(config, reference / "tokenizer", dtype="bfloat16")
    files = catalog.load().models[f"Qwen/Qwen3-ASR-{size}"].files
    published = sum(record.size for name, record in files.items() if name.endswith(".safetensors"))
    assert blueprint.tensors == tensors
    assert published - 200_000 < blueprint.size < published  # their headers say where each tensor lies
    if size == "1.7B":
        assert blueprint.size == 4_698_434_816  # as env/weights.toml states
    assert all(parameter.is_meta for parameter in blueprint.model.parameters())


def test_it_loads_and_decodes_to_the_limit(tmp_path: Path) -> None:
    folder = made(tmp_path / "random", "float32")
    settings = load_settings({"ASR_MODEL": str(folder), "ASR_DEVICE": "cpu", "ASR_MAX_NEW_TOKENS": "5"})
    with open_transcriber(settings) as transcriber:
        transcript = transcriber.transcribe(Audio(joined(2.0), "speech"))
        assert transcript.tokens == 5
        assert records.here(settings, transcriber.device).model == f"{folder} (random weights)"
    assert records.here(load_settings({}), Device("cpu")).model == "demo"


def test_weights_are_as_the_classes_begin_them(tmp_path: Path) -> None:
    loaded = load.load(Checkpoint.open(made(tmp_path / "random", "float32")), device=Device("cpu"), dtype="float32")
    thinker = loaded.model.thinker
    assert thinker.lm_head.weight is thinker.model.embed_tokens.weight
    for weight in (thinker.model.embed_tokens.weight, thinker.audio_tower.layers[0].fc1.weight):
        assert abs(weight.std() - 0.02) < 0.001
        assert abs(weight.mean()) < 0.001
    assert not torch.equal(thinker.model.layers[0].mlp.up_proj.weight, thinker.model.layers[1].mlp.up_proj.weight)
    assert set(thinker.model.norm.weight.tolist()) == {1.0}
    assert set(thinker.audio_tower.layers[0].fc1.bias.tolist()) == {0.0}


def test_shards_hold_the_same_as_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_file(made(tmp_path / "whole") / checkpoint_files.SINGLE)
    monkeypatch.setattr(random_weights, "SHARD", TINY_SHARD)
    blueprint = draw(DEMO_CHECKPOINT, DEMO_CHECKPOINT, dtype="bfloat16")
    told: list[int] = []
    write(blueprint, tmp_path / "parts", on_bytes=told.append)
    assert sum(told) == blueprint.size == sum(tensor.nbytes for tensor in whole.values())
    shards = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(shards) == len(blueprint.shards) > 2
    assert all(shard.stat().st_size < TINY_SHARD + 20_000 for shard in shards)
    parts = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    load.load(Checkpoint.open(tmp_path / "parts"), device=Device("cpu"), dtype="bfloat16")
    mapped = read_json(tmp_path / "parts" / checkpoint_files.INDEX)["weight_map"]
    assert mapped["thinker.lm_head.weight"] != mapped["thinker.model.embed_tokens.weight"]


def test_the_task_says_what_it_makes(tmp_path: Path) -> None:
    result = invoke(
        "dev.random-weights", "--config", DEMO_CHECKPOINT, "--output", tmp_path / "made", "--dtype", "float16"
    )
    assert result.returncode == 0, result.stderr
    assert "tensors in float16" in result.stdout
    assert f"ASR_MODEL={tmp_path / 'made'}" in result.stdout
    assert "random" in (tmp_path / "made" / MARK).read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]
    assert len({path.stat().st_mode for path in (tmp_path / "made").iterdir()}) == 1
    again = invoke("dev.random-weights", DEMO_CHECKPOINT, tmp_path / "made")
    assert_refused(again, "exists already", code=2)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "cannot be read"),
    "config no JSON": (lambda d: (d / "config.json").write_text("{"), "is no JSON file"),
    "other architecture": (lambda d: (d / "config.json").write_text('{"model_type": "bert"}'), "bert"),
    "no vocabulary": (lambda d: (d / "vocab.json").unlink(), "has no vocab.json"),
    "no template": (lambda d: (d / "chat_template.json").unlink(), "has no chat_template.json"),
    "odd vocabulary": (lambda d: (d / "vocab.json").write_text("[]"), "has files that cannot be read"),
    "shapes that do not go": (lambda d: edit_text(d, num_key_value_heads=0), "describes no model that can be made"),
    "too few places": (lambda d: edit_text(d, vocab_size=100), "tokens, the model of --config 100"),
}


def edit_text(directory: Path, **changes: int) -> None:
    """Change the text model's configuration."""
    config = read_json(directory / "config.json")
    config["thinker_config"]["text_config"].update(changes)
    (directory / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("fault", FAULTS)
def test_what_makes_no_model_is_refused(fault: str, tmp_path: Path) -> None:
    damage, words = FAULTS[fault]
    folder = shutil.copytree(DEMO_CHECKPOINT, tmp_path / "source")
    damage(folder)
    with pytest.raises(UsageError) as refused:
        draw(folder, folder, dtype="float32")
    assert words in str(refused.value)


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    blueprint = draw(DEMO_CHECKPOINT, DEMO_CHECKPOINT, dtype="float32")
    with pytest.raises(UsageError, match="has the name of the published model"):
        write(blueprint, tmp_path / "Qwen3-ASR-1.7B")
    (tmp_path / "file").touch()
    with pytest.raises(KitError, match="cannot be written"):
        write(blueprint, tmp_path / "file" / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_without_room_is_left_alone(tmp_path: Path) -> None:
    source = shutil.copytree(DEMO_CHECKPOINT, tmp_path / "source")
    edit_text(source, vocab_size=10**12)
    with pytest.raises(KitError, match=r"needs \d+\.\d GiB, .* GiB free"):
        write(draw(source, source, dtype="float32"), tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
