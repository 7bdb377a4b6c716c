"""The kit decodes the very tokens that qwen-asr's own `Qwen3ASRModel.transcribe` decodes.

qwen-asr itself runs in a process of its own, see runtime/measure/bench/baselines.py.
"""

import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

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
from runtime.transcript import read

CLIPS = 56
BATCH = 8
MAX_NEW_TOKENS = 64

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
    results = recognizer.transcribe([(samples, SAMPLE_RATE) for samples in sounds], language=language)
    return [(row, result.text, result.language) for row, result in zip(recognizer.tokens(), results, strict=True)]


def kit(transcriber: Transcriber, sounds: list[Samples], batch: int, language: str | None) -> Answers:
    """What the kit makes of them, in batches of the same clips."""
    prompt = transcriber.prompter.write(language=language)
    engine = TransformersEngine(transcriber.loaded, max_batch=batch)
    engine.start()
    answers = []
    for start in range(0, len(sounds), batch):
        streams = engine.submit([Utterance(s, prompt, MAX_NEW_TOKENS) for s in sounds[start : start + batch]])
        for decoded in [stream.result() for stream in streams]:
            hypothesis = read(decoded.text, forced=language)
            answers.append((decoded.tokens, hypothesis.text, hypothesis.language or ""))
    engine.stop()
    return answers


@pytest.fixture(scope="module")
def sounds(transcriber: Transcriber, clips: list[Clip]) -> list[Samples]:
    """56 clips of 0.5 to 10 s: the bundled ones cut, joined, turned down and made noisy."""
    return varied(originals(transcriber, clips), CLIPS)


@pytest.mark.parametrize(("batch", "language"), [(1, None), (BATCH, None), (BATCH, "Chinese")])
def test_token_for_token(transcriber: Transcriber, sounds: list[Samples], batch: int, language: str | None) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        ends = list(transcriber.wording.end_tokens)
        theirs = process.submit(qwen_asr, sounds, ends, batch, language).result()
    assert kit(transcriber, sounds, batch, language) == theirs
    assert len({text for _, text, _ in theirs}) > CLIPS // 2


def test_a_larger_batch_against_generate_of_the_same_model(transcriber: Transcriber, sounds: list[Samples]) -> None:
    """This needs no .reference."""
    loaded, chosen, ends = transcriber.loaded, sounds[-16:], list(transcriber.wording.end_tokens)
    prompt = PromptBuilder(loaded.wording).write()
    inputs = loaded.processor(text=[prompt] * len(chosen), audio=chosen, return_tensors="pt", padding=True)
    output = loaded.model.generate(
        **inputs, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=ends, pad_token_id=loaded.wording.pad_token
    )
    rows = output.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    theirs = [tuple(itertools.takewhile(lambda token: token not in ends, row)) for row in rows]
    assert [tokens for tokens, _, _ in kit(transcriber, chosen, len(chosen), None)] == theirs


# Frames: less than a chunk of 1 s, one, several, and the same again; alone, all alike, and all together.
@pytest.mark.parametrize("frames", [[50], [100], [737], [800, 800], [50, 99, 100, 101, 800, 50, 999, 137]])
@torch.inference_mode()
def test_audio_is_encoded_as_clip_by_clip(transcriber: Transcriber, frames: list[int]) -> None:
    thinker = transcriber.loaded.model.thinker
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(len(frames), 128, max(frames), generator=generator)
    mask = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
    theirs = thinker.get_audio_features(features, mask.long())
    torch.testing.assert_close(encode(thinker.audio_tower, features, frames), theirs, rtol=1e-4, atol=1e-4)
