"""Wording that is read from files alone is that of the processor that transformers makes of the checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runtime.demo import CHECKPOINT
from runtime.model.checkpoint import Checkpoint, CheckpointError
from runtime.model.load import backend
from runtime.model.prompt import PromptBuilder, read_tokenizer

TEXTS = (
    "",
    "sara 王芳 <asr_text> 1,250.5 naïve 🙂",
    "<|im_start|>system\nx<|im_end|>\n<|audio_start|><|audio_pad|><|audio_end|>language Chinese<asr_text>",
)


@pytest.fixture(params=["demo", "real"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint's files without weights: the demo's, or the real tokenizer and configuration."""
    if request.param == "demo":
        return CHECKPOINT
    reference: Path = request.getfixturevalue("reference")
    for path in (*(reference / "tokenizer").iterdir(), reference / "configs" / "Qwen3-ASR-1.7B" / "config.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture
def processor(directory: Path) -> Any:
    """What transformers makes of it."""
    backend()
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(directory, fix_mistral_regex=True, local_files_only=True)  # type: ignore[no-untyped-call]


def test_the_tokens_are_the_processors(directory: Path, processor: Any) -> None:
    tokenizer = read_tokenizer(Checkpoint.open_without_weights(directory))
    for text in TEXTS:
        tokens = tokenizer.backend(text)["input_ids"]
        assert tokens == processor.tokenizer(text)["input_ids"]
        (expected,) = processor.batch_decode([tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert tokenizer.text(tokens) == expected


def test_the_prompt_is_the_processors(directory: Path, processor: Any) -> None:
    tokenizer = read_tokenizer(Checkpoint.open_without_weights(directory))
    assert tokenizer.chat_template == processor.chat_template
    messages = [
        {"role": "system", "content": "sara"},
        {"role": "user", "content": [{"type": "audio", "audio": ""}]},
    ]
    expected = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert PromptBuilder(tokenizer).build(context="sara") == expected


def test_ends_and_languages_are_the_files(directory: Path) -> None:
    tokenizer = read_tokenizer(Checkpoint.open_without_weights(directory))
    generation = json.loads((directory / "generation_config.json").read_text())
    config = json.loads((directory / "config.json").read_text())
    assert list(tokenizer.end_tokens) == generation["eos_token_id"]
    assert tokenizer.pad_token == generation["pad_token_id"]
    assert list(tokenizer.languages) == config["support_languages"]
    assert "English" in tokenizer.languages


def test_text_needs_no_weights_but_all_other_files(tmp_path: Path) -> None:
    shutil.copytree(CHECKPOINT, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("model*"):
        path.unlink()
    assert read_tokenizer(Checkpoint.open_without_weights(tmp_path)).text(
        read_tokenizer(Checkpoint.open_without_weights(CHECKPOINT)).backend("bread chicken")["input_ids"]
    )
    for name in ("merges.txt", "vocab.json", "tokenizer_config.json"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text("{}")
        with pytest.raises(CheckpointError, match=rf"{name.replace('.', '[.]')}.* no tokenizer"):
            read_tokenizer(Checkpoint.open_without_weights(tmp_path))
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"merges\.txt absent"):
        read_tokenizer(Checkpoint.open_without_weights(tmp_path))
