"""The demo model's held-out set, on which its card was measured: speech that espeak-ng makes as it is asked for."""

import hashlib
import json
import random
import shutil
import subprocess
from dataclasses import dataclass

from runtime.audio import SAMPLE_RATE, Audio, Limits, from_samples
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
        from runtime.demo import judge  # takes scipy, which only `data_set` may find missing

        try:
            _, sound = judge.utterance(self.index, self.language)
        except (OSError, subprocess.CalledProcessError) as error:
            raise KitError(f"{self.language} {self.index}", f"cannot be spoken: {error}") from error
        return from_samples(sound.samples, SAMPLE_RATE, source=sound.source, limits=limits)


def data_set(each: int = EACH) -> DataSet:
    """The first `each` utterances of each language; the speaker is a voice of espeak-ng. Their texts are plain: as the
    model writes them, and as the card was scored.

    Raises KitError where espeak-ng, or scipy, with which the noise is made, is not installed.
    """
    if shutil.which("espeak-ng") is None:
        raise KitError("espeak-ng", "is not installed; it speaks the held-out set", "apt-get install espeak-ng")
    try:
        from runtime.demo.judge import LANGUAGES
    except ModuleNotFoundError as error:
        advice = f"pip install {error.name}"
        raise KitError(str(error.name), "is not installed; the noise in the held-out set takes it", advice) from None
    items = tuple(_item(index, language) for language in LANGUAGES for index in range(each))
    # Another release speaks otherwise.
    release = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout.split(
        "Data"
    )[0]
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
