"""The kit decodes the very tokens that qwen-asr's own `Qwen3ASRModel.transcribe` decodes.

qwen-asr itself runs in a process of its own, see runtime/measure/bench/baselines.py. Its tower attends within windows
of 8 s with flash attention only; here, where there is none, it is handed the mask that it makes and never uses.
"""

import copy
import itertools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from sounds import Samples, originals, varied

from runtime.audio import SAMPLE_RATE
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.demo import Clip
from runtime.engines import Utterance
from runtime.engines.decode import encode
from runtime.engines.transformers import TransformersEngine
from runtime.measure.bench.baselines import Recognizer
from runtime.model.prompt import PromptBuilder
from runtime.transcriber import Transcriber
from runtime.transcript import parse

CLIPS = 56
BATCH = 8
MAX_NEW_TOKENS = 64
WINDOW = 800  # frames: n_window_infer

Answers = list[tuple[tuple[int, ...], str, str]]  # tokens, text, language


def qwen_asr(sounds: list[Samples], end_tokens: list[int], batch: int, language: str | None) -> Answers:
    """What qwen-asr makes of the clips; runs in its own process."""
    recognizer = Recognizer(
        DEMO_CHECKPOINT,
        end_tokens=end_tokens,
        max_inference_batch_size=batch,
        max_new_tokens=MAX_NEW_TOKENS,
        dtype="float32",
    )
    attend_in_windows(recognizer.tower)
    results = recognizer.transcribe([(samples, SAMPLE_RATE) for samples in sounds], language=language)
    return [(row, result.text, result.language) for row, result in zip(recognizer.tokens(), results, strict=True)]


def attend_in_windows(tower: Any) -> None:
    """Have qwen-asr's tower heed the mask of its own `_prepare_attention_mask`."""
    for layer in tower.layers:
        layer.forward = partial(_with_mask, tower, layer.forward)


def _with_mask(tower: Any, forward: Callable[..., Any], hidden: torch.Tensor, cu_seqlens: torch.Tensor) -> Any:
    return forward(hidden, cu_seqlens, attention_mask=tower._prepare_attention_mask(hidden, cu_seqlens))


def kit(transcriber: Transcriber, sounds: list[Samples], batch: int, language: str | None) -> Answers:
    """What the kit makes of them, in batches of the same clips."""
    prompt = transcriber.prompt_builder.build(language=language)
    engine = TransformersEngine(transcriber.loaded, max_batch=batch)
    engine.start()
    answers = []
    for start in range(0, len(sounds), batch):
        streams = engine.submit([Utterance(s, prompt, MAX_NEW_TOKENS) for s in sounds[start : start + batch]])
        for decoded in [stream.result() for stream in streams]:
            hypothesis = parse(decoded.text, forced=language)
            answers.append((decoded.tokens, hypothesis.text, hypothesis.language or ""))
    engine.stop()
    return answers


@pytest.fixture(scope="module")
def sounds(transcriber: Transcriber, clips: list[Clip]) -> list[Samples]:
    """56 clips of 0.5 to 10 s: the bundled ones cut, joined, turned down and made noisy."""
    found = varied(originals(transcriber, clips), CLIPS)
    assert any(len(samples) > WINDOW * SAMPLE_RATE // 100 for samples in found)
    return found


@pytest.mark.parametrize(("batch", "language"), [(1, None), (BATCH, None), (BATCH, "Chinese")])
def test_token_for_token(transcriber: Transcriber, sounds: list[Samples], batch: int, language: str | None) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        ends = list(transcriber.tokenizer.end_tokens)
        theirs = process.submit(qwen_asr, sounds, ends, batch, language).result()
    assert kit(transcriber, sounds, batch, language) == theirs
    assert len({text for _, text, _ in theirs}) > CLIPS // 2


def test_a_larger_batch_against_generate_of_the_same_model(transcriber: Transcriber, sounds: list[Samples]) -> None:
    """This needs no .reference."""
    within_a_window = [samples for samples in sounds if len(samples) <= WINDOW * SAMPLE_RATE // 100]
    loaded, chosen, ends = transcriber.loaded, within_a_window[-16:], list(transcriber.tokenizer.end_tokens)
    prompt = PromptBuilder(loaded.tokenizer).build()
    inputs = loaded.processor(text=[prompt] * len(chosen), audio=chosen, return_tensors="pt", padding=True)
    output = loaded.model.generate(
        **inputs, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=ends, pad_token_id=loaded.tokenizer.pad_token
    )
    rows = output.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    theirs = [tuple(itertools.takewhile(lambda token: token not in ends, row)) for row in rows]
    assert [tokens for tokens, _, _ in kit(transcriber, chosen, len(chosen), None)] == theirs


@pytest.fixture(scope="module")
def tower(transcriber: Transcriber) -> Any:
    """qwen-asr's own audio encoder, which attends to a whole clip."""
    return transcriber.loaded.model.thinker.audio_tower


def encoded(tower: Any, features: torch.Tensor) -> torch.Tensor:
    """What the tower makes of a clip (mel bands, frames)."""
    output: torch.Tensor = tower(features, feature_lens=torch.tensor([features.shape[1]])).last_hidden_state
    return output


def noise(*frames: int) -> torch.Tensor:
    """Features (clips, mel bands, frames) of as many clips."""
    return torch.randn(len(frames), 128, max(frames), generator=torch.Generator().manual_seed(3))


# Frames: less than a chunk of 1 s, one, several, and the same again, more than a window of 8 s, and many; alone, all
# alike, and all together.
@pytest.mark.parametrize(
    "frames", [[50], [100], [737], [800, 800], [801], [3000], [50, 99, 100, 101, 800, 50, 999, 137, 2437]]
)
@torch.inference_mode()
def test_audio_is_encoded_as_clip_by_clip(tower: Any, frames: list[int]) -> None:
    windowed = copy.deepcopy(tower)
    attend_in_windows(windowed)
    features = noise(*frames)
    theirs = torch.cat(
        [
            encoded(tower if length <= WINDOW else windowed, clip[:, :length])
            for clip, length in zip(features, frames, strict=True)
        ]
    )
    torch.testing.assert_close(encode(tower, features, frames), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [1600, 1700, 2537])
@torch.inference_mode()
def test_longer_audio_is_encoded_as_its_pieces_of_8_s(tower: Any, frames: int) -> None:
    """Positions begin again in each chunk of 1 s, so that a window does not know where in the clip it is."""
    features = noise(frames)
    pieces = [encoded(tower, piece) for piece in torch.split(features[0], WINDOW, dim=1)]
    torch.testing.assert_close(encode(tower, features, [frames]), torch.cat(pieces), rtol=1e-4, atol=1e-4)
