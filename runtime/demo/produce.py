"""`invoke train-demo`: the embedded demo model, its clips, its held-out set and its card, from nothing."""

import itertools
import json
import os
import random
import shutil
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import soundfile

from env.errors import KitError
from env.settings import Settings
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.demo import CLIPS, HELD_OUT_SET
from runtime.demo import judge as judging
from runtime.demo.judge import Score
from runtime.demo.speech import HELD_OUT, SAMPLE_RATE, draw_voice, speechless
from runtime.demo.train import SEED, STEPS, UTTERANCES, train
from runtime.demo.vocabulary import LANGUAGES, draw_sentence
from runtime.measure.clips import MANIFEST
from runtime.progress import progress
from runtime.transcriber import open_transcriber

CARD, SCORE = "README.md", "score.json"
TEMPLATE = Path(__file__).parent / "card.md"
PHASES = {"speak": ("Speaking the corpus", "utterances"), "train": ("Training", "steps")}
CLIPS_EACH = 3  # bundled clips in each language, besides one with a hotword
FIRST_CLIP = 10_040  # the clips are held-out utterances from here on, which the model hears right; no score sees them
HELD_OUT_EACH = 75  # utterances in each language that come with the kit: what 2 MB hold


def produce(output: Path | None, settings: Settings) -> Score:
    """Train the demo model, judge it on this machine's CPU, and write checkpoint, clips, held-out set and card.

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
            with progress(title, STEPS if phase == "train" else UTTERANCES, unit=unit) as bar:
                for _ in steps:
                    bar.advance(1)
        score = judge(made, settings)
        publish(score, made, minutes=(time.monotonic() - started) / 60)
        shutil.copytree(made, output or DEMO_CHECKPOINT, dirs_exist_ok=True)
    if output is None:
        write_clips(CLIPS)
        write_held_out(HELD_OUT_SET)
    return score


def judge(directory: Path, settings: Settings) -> Score:
    """Judge the checkpoint in `directory` under `settings`, on the CPU."""
    chosen = settings.model_copy(update={"model": str(directory), "device": "cpu"})
    done = 0.0
    with open_transcriber(chosen) as transcriber, progress("Judging", 100, unit="%") as bar:
        for step in judging.judge(transcriber):
            if isinstance(step, Score):
                return step
            bar.advance((step - done) * 100)
            done = step
    raise AssertionError("judging ends with a score")


def publish(score: Score, directory: Path, *, minutes: float, remark: str = "") -> None:
    """Write the score, and the card that states it, beside the weights; `remark` is what else their making was."""
    facts = {
        **asdict(score),
        "training_minutes": round(minutes),
        "steps": STEPS,
        "seed": SEED,
        "cores": os.cpu_count(),
        "remark": remark,
        "versions": {name: version(name) for name in ("torch", "transformers", "qwen-asr")},
    }
    (directory / SCORE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (directory / CARD).write_text(card(facts), encoding="utf-8")


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
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(words)


def write_clips(directory: Path) -> None:
    """Write the bundled clips, 16 kHz 16-bit wav, and their manifest: held-out speech that no score has seen."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = []

    def write(name: str, samples: Any, language: str | None, text: str, context: str = "") -> None:
        soundfile.write(directory / f"{name}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
        entries.append({"file": f"{name}.wav", "language": language, "text": text, "context": context})

    for language in LANGUAGES:
        for number in range(1, CLIPS_EACH + 1):
            sentence, sound = judging.utterance(FIRST_CLIP + number, language)
            write(f"{language.lower()}-{number}", sound.samples, language, sentence.text)
        sentence, sound = judging.named_utterance(FIRST_CLIP, language)
        write(f"{language.lower()}-hotword", sound.samples, language, sentence.text, sentence.context)
    write("noise", np.clip(speechless(np.random.default_rng(SEED), HELD_OUT), -1, 1), None, "")
    manifest = json.dumps(entries, ensure_ascii=False, indent=1) + "\n"
    (directory / MANIFEST).write_text(manifest, encoding="utf-8")


def write_held_out(manifest: Path, each: int = HELD_OUT_EACH) -> None:
    """Write the held-out set that comes with the kit: the first `each` utterances of each language that the score was
    measured on, none left out, as Ogg Opus beside their manifest. The speaker is a voice of espeak-ng."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for language in LANGUAGES:
        for index in range(each):
            sentence, sound = judging.utterance(index, language)
            name = f"{language.lower()}-{index:03}.opus"
            soundfile.write(manifest.parent / name, sound.samples, SAMPLE_RATE, format="OGG", subtype="OPUS")
            entry = {"audio": name, "text": sentence.text, "language": language, "speaker": _voice(index, language)}
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    manifest.write_text("".join(lines), encoding="utf-8")


def _voice(index: int, language: str) -> str:
    """Who speaks held-out utterance `index`: what `judging.utterance` draws, in its order."""
    rng = random.Random(f"{judging.SEED} {language} {index}")
    draw_sentence(rng, language)
    return draw_voice(rng, language, HELD_OUT).name
