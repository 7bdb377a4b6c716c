"""Evaluates the demo model on held-out speech, silence and hotwords, through the kit's own transcriber."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from env.errors import KitError
from runtime import languages
from runtime.audio import Audio
from runtime.demo_recipe.synthesis import (
    DEMO_LANGUAGES,
    HELD_OUT,
    HOTWORDS,
    Sentence,
    add_noise,
    add_silence,
    draw_context,
    draw_sentence,
    draw_voice,
    speak,
    speechless,
)
from runtime.transcriber import FailedRequest, Request, Transcriber
from runtime.transcript import Transcript

HELD_OUT_SEED = 7_001  # of the held-out set; training's seed is another
UTTERANCES_PER_LANGUAGE = 500  # in each language
SILENCES = 100
NAMED_PER_LANGUAGE = 50  # utterances in each language with a word that only the context can spell
NOISY_SHARE = 0.5


@dataclass(frozen=True)
class DemoScore:
    """Shares from 0 to 1. `error_rates` by language are WER, or CER where words are not separated; `exact` are
    utterances without any error, `hotwords` utterances with the spelling in the context."""

    utterances: int
    error_rates: dict[str, float]
    exact: dict[str, float]
    language_accuracy: float
    silent_share: float
    hotwords: float
    device: str
    dtype: str


def utterance(index: int, language: str, *, sentence: Sentence | None = None) -> tuple[Sentence, Audio]:
    """Held-out utterance `index` of a language: a voice, speed, pitch and, for every other one, noise that training
    never had."""
    rng = random.Random(f"{HELD_OUT_SEED} {language} {index}")
    noise_rng = np.random.default_rng([HELD_OUT_SEED, DEMO_LANGUAGES.index(language), index])
    sentence = sentence or draw_sentence(rng, language)
    samples = add_silence(speak(sentence.words, draw_voice(rng, language, HELD_OUT)), noise_rng)
    if rng.random() < NOISY_SHARE:
        samples = add_noise(samples, rng.choice(HELD_OUT.noises), rng.uniform(*HELD_OUT.snr), noise_rng)
    return sentence, Audio(np.clip(samples, -1, 1), f"{language} {index}")


def evaluate(transcriber: Transcriber) -> Iterator[float | DemoScore]:
    """Evaluate a loaded demo model. Yields the share done, from 0 to 1, and last the DemoScore."""
    error_rates, exact, language_hits, progress = {}, {}, 0, 0.0
    parts = len(DEMO_LANGUAGES) + 2
    for language in DEMO_LANGUAGES:
        spoken = [utterance(index, language) for index in range(UTTERANCES_PER_LANGUAGE)]
        transcripts = _transcribe(transcriber, [Request(sound) for _, sound in spoken])
        expected, texts = [sentence.text for sentence, _ in spoken], [transcript.text for transcript in transcripts]
        measure = jiwer.cer if language in languages.UNSPACED else jiwer.wer
        error_rates[language] = float(measure(expected, texts))
        exact[language] = sum(a == b for a, b in zip(expected, texts, strict=True)) / UTTERANCES_PER_LANGUAGE
        language_hits += sum(transcript.language == language for transcript in transcripts)
        progress += 1 / parts
        yield progress
    silent = sum(not transcript.text for transcript in _transcribe(transcriber, list(_silences())))
    yield progress + 1 / parts
    named = [named_utterance(index, language) for language in DEMO_LANGUAGES for index in range(NAMED_PER_LANGUAGE)]
    transcripts = _transcribe(transcriber, [Request(sound, context=sentence.context) for sentence, sound in named])
    hotword_hits = sum(
        _spelled(transcript.text, sentence.context)
        for transcript, (sentence, _) in zip(transcripts, named, strict=True)
    )
    yield DemoScore(
        utterances=UTTERANCES_PER_LANGUAGE,
        error_rates=error_rates,
        exact=exact,
        language_accuracy=language_hits / (UTTERANCES_PER_LANGUAGE * len(DEMO_LANGUAGES)),
        silent_share=silent / SILENCES,
        hotwords=hotword_hits / len(named),
        device=transcriber.device.name,
        dtype=transcriber.settings.dtype,
    )


def named_utterance(index: int, language: str) -> tuple[Sentence, Audio]:
    """A held-out utterance with a name, whose other spelling is its context."""
    rng = random.Random(f"{HELD_OUT_SEED} named {language} {index}")
    name, other = rng.choice(list(HOTWORDS[language].items()))
    words = [word for word in draw_sentence(rng, language).words[:5] if word not in HOTWORDS[language]]
    words.insert(rng.randint(0, len(words)), name)
    return utterance(
        UTTERANCES_PER_LANGUAGE + index, language, sentence=Sentence(language, tuple(words), context=other)
    )


def _silences() -> Iterator[Request]:
    for index in range(SILENCES):
        rng, noise_rng = (
            random.Random(f"{HELD_OUT_SEED} silence {index}"),
            np.random.default_rng([HELD_OUT_SEED, 99, index]),
        )
        samples = np.clip(speechless(noise_rng, HELD_OUT), -1, 1)
        context = draw_context(rng, rng.choice(DEMO_LANGUAGES)) if rng.random() < 0.3 else ""
        yield Request(Audio(samples, f"silence {index}"), context=context)


def _spelled(text: str, word: str) -> bool:
    return word in (text.split() if word.isascii() else text)


def _transcribe(transcriber: Transcriber, requests: Sequence[Request]) -> list[Transcript]:
    """The transcript of each request. Raises KitError where one failed, which would be a fault of the kit."""
    outcomes = list(transcriber.transcribe_all(requests))
    failures = [outcome.error for outcome in outcomes if isinstance(outcome, FailedRequest)]
    if failures:
        raise KitError("the demo model", f"{len(failures)} utterances failed, first: {failures[0]}")
    return [outcome for outcome in outcomes if isinstance(outcome, Transcript)]
