"""The demo model is what its card says, and its recipe is what made it."""

import random
import shutil
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch
from reference import read_json

from runtime.audio import Limits, load
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.demo import HELD_OUT_SET, Clip
from runtime.demo_recipe import evaluate, initial_checkpoint, train
from runtime.demo_recipe.losses import LossModule, Spoken, batches, encode
from runtime.demo_recipe.synthesis import (
    DEMO_LANGUAGES,
    HELD_OUT,
    HOTWORDS,
    MOST_WORDS,
    TRAINING,
    Sentence,
    draw_sentence,
    words_of,
)
from runtime.demo_recipe.train import utterance
from runtime.measure.accuracy import published
from runtime.measure.accuracy.layouts import read
from runtime.model.checkpoint import SINGLE
from runtime.transcriber import Request, Transcriber
from runtime.transcript import Transcript

MEBIBYTE = 2**20
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def test_the_vocabulary_is_as_large_as_promised() -> None:
    for language in DEMO_LANGUAGES:
        everyday = [word for word in words_of(language) if word not in HOTWORDS[language]]
        assert len(set(everyday)) == len(everyday) >= 60
    rng = random.Random(1)
    lengths = {len(draw_sentence(rng, "English").words) for _ in range(500)}
    assert lengths == set(range(1, MOST_WORDS + 1))


def test_a_context_decides_between_spellings() -> None:
    words = ("john", "open", "sarah")
    assert Sentence("English", words).text == "john open sarah"
    assert Sentence("English", words, "water, jon").text == "jon open sarah"
    assert Sentence("Chinese", ("王芳", "好"), "王方").text == "王方好"


def test_nothing_held_out_occurs_in_training() -> None:
    assert not set(HELD_OUT.variants) & set(TRAINING.variants)
    assert not set(HELD_OUT.speeds) & set(TRAINING.speeds)
    assert not set(HELD_OUT.pitches) & set(TRAINING.pitches)
    assert not set(HELD_OUT.noises) & set(TRAINING.noises)


def test_the_files_are_those_the_recipe_writes(tmp_path: Path) -> None:
    initial_checkpoint.write(tmp_path)
    written = {file.name for file in tmp_path.iterdir()}
    assert written | {SINGLE, train.MODEL_CARD, train.SCORE} == {file.name for file in DEMO_CHECKPOINT.iterdir()}
    for name in written:
        assert (tmp_path / name).read_bytes() == (DEMO_CHECKPOINT / name).read_bytes()


def test_the_special_tokens_are_those_of_the_real_tokenizer(reference: Path) -> None:
    real = read_json(reference / "tokenizer" / "tokenizer_config.json")["added_tokens_decoder"]
    assert {entry["content"]: entry["special"] for entry in real.values()} == initial_checkpoint.SPECIAL_TOKENS
    assert [real[key]["content"] for key in sorted(real, key=int)] == list(initial_checkpoint.SPECIAL_TOKENS)


def test_features_are_made_as_for_the_real_model(reference: Path) -> None:
    real = read_json(reference / "tokenizer" / "preprocessor_config.json")
    assert real == read_json(DEMO_CHECKPOINT / "preprocessor_config.json")


def test_words_are_single_tokens(transcriber: Transcriber) -> None:
    tokenizer = transcriber.loaded.processor.tokenizer
    for word in [*words_of("English"), *HOTWORDS["English"].values()]:
        assert len(tokenizer(f" {word}")["input_ids"]) == len(tokenizer(word)["input_ids"]) == 1
    assert len(tokenizer("今天王方")["input_ids"]) == 4
    assert tokenizer.decode(tokenizer("Ünïcödé 🎧 龘")["input_ids"]) == "Ünïcödé 🎧 龘"


def test_checkpoint_and_clips_stay_small(clips: list[Clip]) -> None:
    folders = {DEMO_CHECKPOINT, clips[0].path.parent}
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) <= 12 * MEBIBYTE


def test_the_held_out_set_is_small_and_whole() -> None:
    data = published.data_set()
    folder = HELD_OUT_SET.parent
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2_000_000
    assert {Path(str(item.source)) for item in data.items} == set(folder.glob("*.opus"))
    assert (data.layout, data.plain, data.refused) == ("demo", True, ())
    assert [item.language for item in data.items] == [one for one in DEMO_LANGUAGES for _ in range(train.HELD_OUT_EACH)]


def test_the_card_states_the_score_and_the_warning() -> None:
    score = read_json(DEMO_CHECKPOINT / train.SCORE)
    card = (DEMO_CHECKPOINT / train.MODEL_CARD).read_text(encoding="utf-8")
    assert card == train.card(score)
    assert "not a recogniser to use" in card


def test_the_score_is_as_good_as_promised() -> None:
    score = read_json(DEMO_CHECKPOINT / train.SCORE)
    assert score["utterances"] >= 500
    assert all(rate <= 0.03 for rate in score["error_rates"].values())
    assert score["language_accuracy"] >= 0.99
    assert score["silent_share"] >= 0.99


@needs_espeak
def test_held_out_speech_is_heard_as_the_card_says(transcriber: Transcriber) -> None:
    for language in DEMO_LANGUAGES:
        spoken = [evaluate.utterance(index, language) for index in range(0, evaluate.UTTERANCES_PER_LANGUAGE, 10)]
        heard = [o for o in transcriber.transcribe_all(Request(s) for _, s in spoken) if isinstance(o, Transcript)]
        measure = jiwer.cer if language == "Chinese" else jiwer.wer
        rate = measure([sentence.text for sentence, _ in spoken], [transcript.text for transcript in heard])
        assert rate <= 0.05
        assert sum(transcript.language == language for transcript in heard) >= len(spoken) - 1


@needs_espeak
def test_the_bundled_clips_are_those_the_recipe_writes(clips: list[Clip], tmp_path: Path) -> None:
    train.write_clips(tmp_path)
    names = {clip.path.name for clip in clips} | {"clips.json"}
    assert {file.name for file in tmp_path.iterdir()} == names
    assert read_json(tmp_path / "clips.json") == read_json(clips[0].path.parent / "clips.json")


@needs_espeak
def test_the_held_out_set_is_what_the_recipe_writes(tmp_path: Path) -> None:
    train.write_held_out(tmp_path / HELD_OUT_SET.name, each=2)
    kept = HELD_OUT_SET.read_text(encoding="utf-8").splitlines()
    each = train.HELD_OUT_EACH
    assert (tmp_path / HELD_OUT_SET.name).read_text(encoding="utf-8").splitlines() == [*kept[:2], *kept[each:][:2]]
    for path in sorted(tmp_path.glob("*.opus")):
        again, bundled = (
            load(folder / path.name, limits=Limits()).samples for folder in (tmp_path, HELD_OUT_SET.parent)
        )
        assert len(again) == len(bundled)
        assert np.corrcoef(again, bundled)[0, 1] > 0.99


@needs_espeak
def test_the_speaker_of_a_held_out_utterance_is_the_voice_that_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, real = tmp_path / "log", shutil.which("espeak-ng")
    (tmp_path / "espeak-ng").write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    (tmp_path / "espeak-ng").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    train.write_held_out(tmp_path / HELD_OUT_SET.name, each=1)
    spoken = log.read_text(encoding="utf-8").splitlines()
    assert len(spoken) == len(DEMO_LANGUAGES)
    for line, item in zip(spoken, read(tmp_path / HELD_OUT_SET.name).items, strict=True):
        assert f"-v {item.speaker} " in line


def test_the_recipes_encoder_is_qwen_asrs(transcriber: Transcriber) -> None:
    tower = transcriber.loaded.model.thinker.audio_tower
    lengths = torch.tensor([37, 100, 250, 799])
    features = torch.randn(4, 128, 799, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        audio, _, counts = encode(tower, features, lengths, windowed=False)
        for row, length in enumerate(lengths):
            theirs = tower(features[row, :, :length], feature_lens=length[None]).last_hidden_state
            assert counts[row] == len(theirs)
            torch.testing.assert_close(audio[row, : counts[row]], theirs, rtol=1e-4, atol=1e-5)


@needs_espeak
def test_training_lowers_its_losses(transcriber: Transcriber) -> None:
    spoken: list[Spoken] = [utterance(index) for index in range(6)]
    clips = next(batches(spoken, TRAINING, 60.0, seed=1, talk=0.5, hotwords=0.5))
    torch.manual_seed(3)
    backend_model = type(transcriber.loaded.model)(transcriber.loaded.model.config).float()
    lesson = LossModule(backend_model, transcriber.loaded.processor)
    optimizer = torch.optim.AdamW(lesson.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        parts = lesson(clips)
        optimizer.zero_grad()
        sum(parts).backward()
        optimizer.step()
        losses.append([part.item() for part in parts])
    assert all(np.array(losses[-1]) < 0.6 * np.array(losses[0]))
