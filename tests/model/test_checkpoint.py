"""Whole checkpoints load, others are refused with the file at fault."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from reference import read_json

from env.sources import PROJECT, load_settings
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.model import checkpoint
from runtime.model.checkpoint import INDEX, SINGLE, Checkpoint, CheckpointError
from runtime.model.device import Device
from runtime.model.load import backend, load
from runtime.transcriber import open_transcriber


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the demo checkpoint, to be damaged."""
    return shutil.copytree(DEMO_CHECKPOINT, tmp_path / "checkpoint")


def edit_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**read_json(path), **changes}))


def shorten(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "no such directory"),
    "config absent": (lambda d: (d / "config.json").unlink(), "config.json absent"),
    "tokenizer absent": (lambda d: (d / "vocab.json").unlink(), "vocab.json absent"),
    "template absent": (lambda d: (d / "chat_template.json").unlink(), "chat_template.json absent"),
    "config no JSON": (lambda d: (d / "config.json").write_text("{"), "cannot be read as JSON"),
    "config no object": (lambda d: (d / "config.json").write_text("[]"), "holds no JSON object"),
    "vocabulary cut": (lambda d: shorten(d / "vocab.json", 500), "vocab.json: cannot be read as JSON"),
    "other architecture": (lambda d: edit_config(d, model_type="whisper"), "another architecture: whisper"),
    "weights absent": (lambda d: (d / SINGLE).unlink(), f"{SINGLE} absent"),
    "weights cut": (lambda d: shorten(d / SINGLE, 100_000), "100000 bytes, its header says"),
    "weights cut in the header": (lambda d: shorten(d / SINGLE, 1_000), "no safetensors file, or cut off (1000 bytes)"),
    "weights empty": (lambda d: shorten(d / SINGLE, 0), "no safetensors file, or cut off (0 bytes)"),
    "shard absent": (
        lambda d: (d / INDEX).write_text(json.dumps({"weight_map": {"a": SINGLE, "b": "model-2.safetensors"}})),
        "model-2.safetensors absent",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_whole_is_refused(copy: Path, fault: str) -> None:
    damage, reason = FAULTS[fault]
    damage(copy)
    with pytest.raises(CheckpointError) as refused:
        Checkpoint.open(copy)
    assert reason in str(refused.value)
    assert str(copy) in str(refused.value)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file, not a directory"):
        Checkpoint.open(tmp_path / "file")


def test_weights_of_other_layers_are_refused(copy: Path) -> None:
    config = read_json(copy / "config.json")
    config["thinker_config"]["text_config"]["num_hidden_layers"] += 1
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"weights do not fit the architecture: .* missing keys"):
        load(Checkpoint.open(copy), device=Device("cpu"), dtype="float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_loads_in_each_dtype(dtype: str) -> None:
    import torch

    loaded = load(Checkpoint.open(DEMO_CHECKPOINT), device=Device("cpu"), dtype=dtype)
    assert {weight.dtype for weight in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert loaded.tokenizer.languages == ("English", "Chinese")
    assert loaded.tokenizer.end_tokens == tuple(read_json(DEMO_CHECKPOINT / "generation_config.json")["eos_token_id"])


def test_sharded_weights_load(copy: Path) -> None:
    import torch

    whole = load(Checkpoint.open(copy), device=Device("cpu"), dtype="float32")
    whole.model.save_pretrained(copy, max_shard_size="4MB")
    (copy / SINGLE).unlink(missing_ok=True)
    assert (copy / INDEX).is_file()
    sharded = load(Checkpoint.open(copy), device=Device("cpu"), dtype="float32")
    pairs = zip(whole.model.parameters(), sharded.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_real_configuration_is_read_by_the_same_classes(reference: Path) -> None:
    config = backend().Qwen3ASRConfig.from_pretrained(reference / "configs" / "Qwen3-ASR-1.7B")
    assert config.model_type == checkpoint.MODEL_TYPE
    assert config.thinker_config.text_config.num_hidden_layers == 28


def test_registering_twice_is_harmless() -> None:
    assert backend() is backend()


@pytest.mark.parametrize("package", ["nagisa", "soynlp", "sox", "gradio", "flask", "librosa"])
def test_what_qwen_asr_insists_on_is_absent_here(package: str) -> None:
    assert find_spec(package) is None


def test_the_model_loads_where_qwen_asr_itself_does_not() -> None:
    script = (
        "from runtime import demo; from runtime.model import load\n"
        "from runtime.model.checkpoint import Checkpoint; from runtime.model.device import Device\n"
        "load.load(Checkpoint.open(demo.CHECKPOINT), device=Device('cpu'), dtype='float32')\n"
        "try:\n    import qwen_asr\nexcept ModuleNotFoundError as error:\n    print('absent:', error.name)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout.split() in (["absent:", "librosa"], ["absent:", "nagisa"])


def test_a_checkpoint_with_the_real_tokenizer_and_widths_transcribes(reference: Path, tmp_path: Path) -> None:
    """Two layers of the 0.6B model with random weights: what it says is noise, but it is loaded, prompted and read as
    the real one is."""
    import torch

    from env.sources import load_settings
    from runtime.demo import bundled_clips
    from runtime.transcriber import open_transcriber

    shutil.copytree(reference / "tokenizer", tmp_path, dirs_exist_ok=True)
    config = read_json(reference / "configs" / "Qwen3-ASR-0.6B" / "config.json")
    config["thinker_config"]["text_config"]["num_hidden_layers"] = 2
    config["thinker_config"]["audio_config"]["encoder_layers"] = 2
    real = backend()
    torch.manual_seed(1)
    model = real.Qwen3ASRForConditionalGeneration(real.Qwen3ASRConfig(**config)).bfloat16()
    model.save_pretrained(tmp_path, max_shard_size="200MB")
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(reference / "tokenizer" / "generation_config.json", tmp_path)
    settings = load_settings(
        {"ASR_MODEL": str(tmp_path), "ASR_DEVICE": "cpu", "ASR_DTYPE": "bfloat16", "ASR_MAX_NEW_TOKENS": "8"}
    )
    with open_transcriber(settings) as transcriber:
        assert len(transcriber.tokenizer.languages) == 30
        assert transcriber.tokenizer.end_tokens == (151643, 151645)
        transcript = transcriber.transcribe(bundled_clips()[0].path, language="粤语", context="热词")
        assert transcript.tokens <= 8
        assert "assistant\nlanguage Cantonese<asr_text>" in transcriber.prompt_builder.build(language="Cantonese")


def test_a_load_checks_a_checkpoint_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers reads of it is its own business."""
    read: list[str] = []
    by_itself = checkpoint.read_json

    def counted(path: Path) -> dict[str, Any]:
        read.append(path.name)
        return by_itself(path)

    monkeypatch.setattr(checkpoint, "read_json", counted)
    with open_transcriber(load_settings({"ASR_PROFILE": "cpu"})) as opened:
        assert opened.tokenizer.languages == ("English", "Chinese")
    assert sorted(read) == sorted({*read})
    assert "config.json" in read
