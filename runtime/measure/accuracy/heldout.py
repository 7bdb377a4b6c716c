"""The demo model's held-out set, on which its card was measured: speech that espeak-ng makes as it is asked for."""

import hashlib
import json
import random
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec

from runtime.audio import SAMPLE_RATE, Audio, Limits
from runtime.audio.decode import from_samples
from runtime.errors import KitError
from runtime.measure.accuracy import DataSet, Item

EACH = 500  # utterances in each language, as on the card


@dataclass(frozen=True)
class HeldOut:
    """Utterance `index` of a language, spoken when it is loaded."""

    index: int
    language: str

    def load(self, *, limits: Limits) -> Audio:
        """Its sound. Raises KitError where espeak-ng is gone or refuses."""
        from runtime.demo import judge

        try:
            _, sound = judge.utterance(self.index, self.language)
        except (OSError, subprocess.CalledProcessError) as error:
            raise KitError(f"{self.language} {self.index}", f"cannot be spoken: {error}") from error
        return from_samples(sound.samples, SAMPLE_RATE, source=sound.source, limits=limits)


def lacking() -> dict[str, str]:
    """What the set is made with, voice and noise, and is not installed here; and the command that installs it."""
    there = {"espeak-ng": shutil.which("espeak-ng"), "scipy": find_spec("scipy")}
    how = {"espeak-ng": "apt-get install espeak-ng", "scipy": "pip install scipy"}
    return {name: how[name] for name, found in there.items() if not found}


def data_set(each: int = EACH) -> DataSet:
    """The first `each` utterances of each language; the speaker is a voice of espeak-ng. Their texts are plain: as the
    model writes them, and as the card was scored.

    Raises KitError where espeak-ng, or scipy, with which the noise is made, is not installed.
    """
    for name, advice in lacking().items():
        raise KitError(name, "is not installed; the held-out set is made with it", advice)
    from runtime.demo.judge import LANGUAGES

    items = tuple(_item(index, language) for language in LANGUAGES for index in range(each))
    # Another release speaks otherwise.
    release = subprocess.run(
        ["espeak-ng", "--version"], check=True, capture_output=True, encoding="utf-8", errors="replace"
    ).stdout.split("Data")[0]
    digest = hashlib.sha256(json.dumps([release, *((item.name, item.text, item.speaker) for item in items)]).encode())
    return DataSet("demo model, held-out", "demo", digest.hexdigest(), items, plain=True)


def _item(index: int, language: str) -> Item:
    from runtime.demo.judge import SEED
    from runtime.demo.speech import HELD_OUT, draw_voice
    from runtime.demo.vocabulary import draw_sentence

    rng = random.Random(f"{SEED} {language} {index}")  # what judge.utterance draws, in its order
    sentence = draw_sentence(rng, language)
    voice = draw_voice(rng, language, HELD_OUT)
    return Item(f"{language} {index}", HeldOut(index, language), sentence.text, language, voice.name)
