"""The recipe of the demo model, from nothing: speak a corpus, train on it, write a checkpoint."""

import itertools
import math
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import utils
from torch.optim.lr_scheduler import OneCycleLR

from runtime.demo import blank
from runtime.demo.learn import PHONEME_WEIGHT, WORD_WEIGHT, Clip, Lesson, Spoken, batches
from runtime.demo.speech import TRAINING, Conditions, draw_voice, recorded, speak
from runtime.demo.vocabulary import LANGUAGES, MOST_WORDS, draw_sentence
from runtime.model import checkpoint as checkpoint_files
from runtime.model import load

SEED = 20_260_122
UTTERANCES = 36_000  # spoken once; each is heard six or seven times, never twice under the same conditions
BATCH_SECONDS = 64.0
LEARNING_RATE = 1.2e-3
SAVE_EVERY = 500  # steps


@dataclass(frozen=True)
class Stage:
    """What is learned up to step `until`: utterances of at most `most_words`; a share `talk` of the clips holds several
    of them with pauses between; of those with a name, a share `hotwords` has its other spelling in the context."""

    until: int
    most_words: int = MOST_WORDS
    talk: float = 0.0
    hotwords: float = 0.0


STAGES = (
    Stage(1_500, most_words=3),
    Stage(8_500),
    Stage(10_000, talk=0.5),
    Stage(13_500, talk=0.5, hotwords=0.5),
)
STEPS = STAGES[-1].until


@dataclass(frozen=True)
class Progress:
    """Where training stands: `done` of `total` utterances spoken or steps taken, with the current losses."""

    phase: str
    done: int
    total: int
    answer: float = math.nan
    words: float = math.nan
    phonemes: float = math.nan


def utterance(index: int) -> Spoken:
    """Utterance `index` of the training corpus; languages alternate."""
    rng = random.Random(SEED * 100_003 + index)
    sentence = draw_sentence(rng, LANGUAGES[index % len(LANGUAGES)])
    samples = speak(sentence.words, draw_voice(rng, sentence.language, TRAINING))
    return Spoken(sentence, (np.clip(samples, -1, 1) * 32_767).astype(np.int16))


def train(directory: Path) -> Iterator[Progress]:
    """Train the demo model into `directory`, yielding progress; every 500 steps the checkpoint there is renewed.

    Takes espeak-ng, 6 GB of memory and at most two hours on two cores.
    """
    torch.manual_seed(SEED)
    random.seed(SEED)
    corpus: list[Spoken] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for spoken in pool.map(utterance, range(UTTERANCES)):
            corpus.append(spoken)
            yield Progress("speak", len(corpus), UTTERANCES)
    blank.write(directory)
    backend = load.backend()
    model = backend.Qwen3ASRForConditionalGeneration(backend.Qwen3ASRConfig.from_pretrained(directory)).float()
    initialise(model)
    lesson = Lesson(model, backend.Qwen3ASRProcessor.from_pretrained(directory, fix_mistral_regex=True))
    optimizer = torch.optim.AdamW(lesson.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.05, cycle_momentum=False)
    conditions = replace(TRAINING, noises=tuple(recorded(noise, k) for k, noise in enumerate(TRAINING.noises)))
    for step, clips in enumerate(curriculum(corpus, conditions), start=1):
        answer, words, phonemes = lesson(clips)
        optimizer.zero_grad()
        (answer + WORD_WEIGHT * words + PHONEME_WEIGHT * phonemes).backward()
        utils.clip_grad_norm_(lesson.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % SAVE_EVERY == 0 or step == STEPS:
            save(lesson, directory)
        yield Progress("train", step, STEPS, answer.item(), words.item(), phonemes.item())


def curriculum(corpus: list[Spoken], conditions: Conditions) -> Iterator[list[Clip]]:
    """A batch for every step, stage by stage."""
    step = 0
    for number, stage in enumerate(STAGES):
        known = [spoken for spoken in corpus if len(spoken.sentence.words) <= stage.most_words]
        supply = batches(known, conditions, BATCH_SECONDS, SEED + number, talk=stage.talk, hotwords=stage.hotwords)
        yield from itertools.islice(supply, stage.until - step)
        step = stage.until


def initialise(model: Any) -> None:
    """Weights that keep the signal's size from layer to layer (LeCun et al., 1998, "Efficient BackProp").

    The architecture's own 0.02 suits wide layers. In layers this narrow it lets speech fade to a ten-thousandth of the
    positional embedding it is added to, and the encoder hears nothing for thousands of steps.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    tower = model.thinker.audio_tower
    for layer in (tower.conv2d1, tower.conv2d2, tower.conv2d3):
        nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
    nn.init.normal_(model.thinker.model.embed_tokens.weight, std=0.05)


def save(lesson: Lesson, directory: Path) -> None:
    """Write the weights in bfloat16, as the real checkpoint holds them."""
    weights = {name: value.bfloat16() for name, value in lesson.model.state_dict().items()}
    save_file(weights, directory / checkpoint_files.SINGLE, metadata={"format": "pt"})
    (directory / checkpoint_files.SINGLE).chmod(0o644)
