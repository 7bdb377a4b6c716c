"""Builds the demo model from nothing: synthesise a corpus, train on it, evaluate, and write a checkpoint."""

import itertools
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import utils
from torch.optim.lr_scheduler import OneCycleLR

from env.errors import KitError
from env.settings import Settings
from runtime.audio.wav import wav_bytes
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.demo import CLIPS, CLIPS_MANIFEST, HELD_OUT_SET
from runtime.demo_recipe import evaluate as evaluation
from runtime.demo_recipe import initial_checkpoint
from runtime.demo_recipe.evaluate import DemoScore
from runtime.demo_recipe.losses import PHONEME_WEIGHT, WORD_WEIGHT, LossModule, Spoken, TrainingExample, batches
from runtime.demo_recipe.synthesis import (
    DEMO_LANGUAGES,
    HELD_OUT,
    MOST_WORDS,
    SAMPLE_RATE,
    TRAINING,
    Conditions,
    draw_sentence,
    draw_voice,
    recorded,
    speak,
    speechless,
)
from runtime.model import checkpoint as checkpoint_files
from runtime.model import load
from runtime.progress import progress_bar
from runtime.transcriber import open_transcriber

TRAINING_SEED = 20_260_122
CORPUS_UTTERANCES = (
    36_000  # each is spoken once, and trained on six or seven times, never twice under the same conditions
)
BATCH_SECONDS = 64.0
LEARNING_RATE = 1.2e-3
SAVE_EVERY = 500  # steps

MODEL_CARD, SCORE = "README.md", "score.json"
CARD_TEMPLATE = Path(__file__).parent / "card.md"
PHASES = {"speak": ("Speaking the corpus", "utterances"), "train": ("Training", "steps")}
CLIPS_EACH = 3  # bundled clips in each language, besides one with a hotword
# The clips are held-out utterances from here on, which the model transcribes without error; no score uses them.
FIRST_CLIP = 10_040
HELD_OUT_EACH = 75  # utterances in each language that come with the kit: what 2 MB hold


@dataclass(frozen=True)
class Stage:
    """A stage of the curriculum, up to step `until`: utterances of at most `most_words`; a share `talk` of the clips
    joins several with pauses; of those with a name, a share `hotwords` has its other spelling in the context."""

    until: int
    most_words: int = MOST_WORDS
    talk: float = 0.0
    hotwords: float = 0.0


CURRICULUM = (
    Stage(1_500, most_words=3),
    Stage(8_500),
    Stage(10_000, talk=0.5),
    Stage(13_500, talk=0.5, hotwords=0.5),
)
TRAINING_STEPS = CURRICULUM[-1].until


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of training: `done` of `total` utterances spoken or steps taken, with the current losses."""

    phase: str
    done: int
    total: int
    answer: float = math.nan
    words: float = math.nan
    phonemes: float = math.nan


def utterance(index: int) -> Spoken:
    """Utterance `index` of the training corpus; languages alternate."""
    rng = random.Random(TRAINING_SEED * 100_003 + index)
    sentence = draw_sentence(rng, DEMO_LANGUAGES[index % len(DEMO_LANGUAGES)])
    samples = speak(sentence.words, draw_voice(rng, sentence.language, TRAINING))
    return Spoken(sentence, (np.clip(samples, -1, 1) * 32_767).astype(np.int16))


def train(directory: Path) -> Iterator[TrainingProgress]:
    """Train the demo model into `directory`, yielding progress; every 500 steps the checkpoint there is renewed.

    Takes espeak-ng, 6 GB of memory and at most two hours on two cores.
    """
    torch.manual_seed(TRAINING_SEED)
    random.seed(TRAINING_SEED)
    corpus: list[Spoken] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for spoken in pool.map(utterance, range(CORPUS_UTTERANCES)):
            corpus.append(spoken)
            yield TrainingProgress("speak", len(corpus), CORPUS_UTTERANCES)
    initial_checkpoint.write(directory)
    backend = load.backend()
    model = backend.Qwen3ASRForConditionalGeneration(backend.Qwen3ASRConfig.from_pretrained(directory)).float()
    initialise(model)
    loss_module = LossModule(model, backend.Qwen3ASRProcessor.from_pretrained(directory, fix_mistral_regex=True))
    optimizer = torch.optim.AdamW(loss_module.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = OneCycleLR(optimizer, LEARNING_RATE, TRAINING_STEPS, pct_start=0.05, cycle_momentum=False)
    conditions = replace(TRAINING, noises=tuple(recorded(noise, k) for k, noise in enumerate(TRAINING.noises)))
    for step, clips in enumerate(curriculum(corpus, conditions), start=1):
        answer, words, phonemes = loss_module(clips)
        optimizer.zero_grad()
        (answer + WORD_WEIGHT * words + PHONEME_WEIGHT * phonemes).backward()
        utils.clip_grad_norm_(loss_module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % SAVE_EVERY == 0 or step == TRAINING_STEPS:
            save(loss_module, directory)
        yield TrainingProgress("train", step, TRAINING_STEPS, answer.item(), words.item(), phonemes.item())


def curriculum(corpus: list[Spoken], conditions: Conditions) -> Iterator[list[TrainingExample]]:
    """A batch for every step, stage by stage."""
    step = 0
    for number, stage in enumerate(CURRICULUM):
        known = [spoken for spoken in corpus if len(spoken.sentence.words) <= stage.most_words]
        supply = batches(
            known, conditions, BATCH_SECONDS, TRAINING_SEED + number, talk=stage.talk, hotwords=stage.hotwords
        )
        yield from itertools.islice(supply, stage.until - step)
        step = stage.until


def initialise(model: Any) -> None:
    """Weights that keep the signal's size from layer to layer (LeCun et al., 1998, "Efficient BackProp").

    The architecture's own 0.02 suits wide layers. In layers this narrow it lets speech fade to a ten-thousandth of the
    positional embedding it is added to, and the encoder gets no signal for thousands of steps.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    tower = model.thinker.audio_tower
    for layer in (tower.conv2d1, tower.conv2d2, tower.conv2d3):
        nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
    nn.init.normal_(model.thinker.model.embed_tokens.weight, std=0.05)


def save(loss_module: LossModule, directory: Path) -> None:
    """Write the weights in bfloat16, as the real checkpoint holds them."""
    weights = {name: value.bfloat16() for name, value in loss_module.model.state_dict().items()}
    save_file(weights, directory / checkpoint_files.SINGLE, metadata={"format": "pt"})
    (directory / checkpoint_files.SINGLE).chmod(0o644)


def build(output: Path | None, settings: Settings) -> DemoScore:
    """Train the demo model, evaluate it on this machine's CPU, and write checkpoint, clips, held-out set and card.

    `output` None replaces the embedded model. Nothing is written there before all of it is done. Raises KitError where
    espeak-ng is not installed.
    """
    if shutil.which("espeak-ng") is None:
        raise KitError(
            "espeak-ng", "is not installed; it speaks what the model learns from", "apt-get install espeak-ng"
        )
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "checkpoint"
        started = time.monotonic()
        for phase, steps in itertools.groupby(train(made), key=attrgetter("phase")):
            title, unit = PHASES[phase]
            with progress_bar(title, TRAINING_STEPS if phase == "train" else CORPUS_UTTERANCES, unit=unit) as bar:
                for _ in steps:
                    bar.advance(1)
        score = evaluate(made, settings)
        publish(score, made, minutes=(time.monotonic() - started) / 60)
        shutil.copytree(made, output or DEMO_CHECKPOINT, dirs_exist_ok=True)
    if output is None:
        write_clips(CLIPS)
        write_held_out(HELD_OUT_SET)
    return score


def evaluate(directory: Path, settings: Settings) -> DemoScore:
    """Evaluate the checkpoint in `directory` under `settings`, on the CPU, with a progress bar."""
    chosen = settings.model_copy(update={"model": str(directory), "device": "cpu"})
    done = 0.0
    with open_transcriber(chosen) as transcriber, progress_bar("Evaluating", 100, unit="%") as bar:
        for step in evaluation.evaluate(transcriber):
            if isinstance(step, DemoScore):
                return step
            bar.advance((step - done) * 100)
            done = step
    raise AssertionError("the evaluation ends with a score")


def publish(score: DemoScore, directory: Path, *, minutes: float, remark: str = "") -> None:
    """Write the score, and the card that states it, beside the weights; `remark` is a note for the card."""
    facts = {
        **asdict(score),
        "training_minutes": round(minutes),
        "steps": TRAINING_STEPS,
        "seed": TRAINING_SEED,
        "cores": os.cpu_count(),
        "remark": remark,
        "versions": {name: version(name) for name in ("torch", "transformers", "qwen-asr")},
    }
    (directory / SCORE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (directory / MODEL_CARD).write_text(card(facts), encoding="utf-8")


def card(facts: dict[str, Any]) -> str:
    """The model card for a score as `publish` writes it."""
    words = {
        **{key: f"{facts[key]:.1%}" for key in ("language_accuracy", "silent_share", "hotwords")},
        **{f"error_{language.lower()}": f"{rate:.2%}" for language, rate in facts["error_rates"].items()},
        **{f"exact_{language.lower()}": f"{share:.1%}" for language, share in facts["exact"].items()},
        **{key: str(facts[key]) for key in ("utterances", "device", "dtype")},
        **{key: str(facts[key]) for key in ("training_minutes", "steps", "seed", "cores", "remark")},
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
    }
    return Template(CARD_TEMPLATE.read_text(encoding="utf-8")).substitute(words)


def write_clips(directory: Path) -> None:
    """Write the bundled clips, 16 kHz 16-bit wav, and their manifest: held-out speech that no score uses."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = []

    def write(name: str, samples: Any, language: str | None, text: str, context: str = "") -> None:
        (directory / f"{name}.wav").write_bytes(wav_bytes(samples))
        entries.append({"file": f"{name}.wav", "language": language, "text": text, "context": context})

    for language in DEMO_LANGUAGES:
        for number in range(1, CLIPS_EACH + 1):
            sentence, sound = evaluation.utterance(FIRST_CLIP + number, language)
            write(f"{language.lower()}-{number}", sound.samples, language, sentence.text)
        sentence, sound = evaluation.named_utterance(FIRST_CLIP, language)
        write(f"{language.lower()}-hotword", sound.samples, language, sentence.text, sentence.context)
    write("noise", np.clip(speechless(np.random.default_rng(TRAINING_SEED), HELD_OUT), -1, 1), None, "")
    manifest = json.dumps(entries, ensure_ascii=False, indent=1) + "\n"
    (directory / CLIPS_MANIFEST).write_text(manifest, encoding="utf-8")


def write_held_out(manifest: Path, each: int = HELD_OUT_EACH) -> None:
    """Write the held-out set that comes with the kit: the first `each` utterances of each language that the score was
    measured on, none left out, as Ogg Opus beside their manifest. The speaker is a voice of espeak-ng."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for language in DEMO_LANGUAGES:
        for index in range(each):
            sentence, sound = evaluation.utterance(index, language)
            name = f"{language.lower()}-{index:03}.opus"
            soundfile.write(manifest.parent / name, sound.samples, SAMPLE_RATE, format="OGG", subtype="OPUS")
            entry = {"audio": name, "text": sentence.text, "language": language, "speaker": _voice(index, language)}
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    manifest.write_text("".join(lines), encoding="utf-8")


def _voice(index: int, language: str) -> str:
    """The voice of held-out utterance `index`: what `evaluation.utterance` draws, in its order."""
    rng = random.Random(f"{evaluation.HELD_OUT_SEED} {language} {index}")
    draw_sentence(rng, language)
    return draw_voice(rng, language, HELD_OUT).name
