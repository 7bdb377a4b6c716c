"""Speech of any length, made of the bundled clips: always the same, so that runs can be compared."""

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from runtime import audio
from runtime.audio import SAMPLE_RATE, Limits, Samples
from runtime.audio.wav import wav_bytes
from runtime.demo import bundled_clips

SHORTEST, LONGEST = 1.0, 20.0  # seconds
PAUSE = 0.4  # seconds after each clip
SEED = 4  # of the order of lengths


@dataclass(frozen=True)
class Recording:
    """A WAV file of 16-bit samples at 16 kHz, and how long it plays."""

    file: bytes
    seconds: float


def joined(seconds: float, *, first: int = 0) -> Samples:
    """So many seconds of speech, 16 kHz mono float32 of shape (n,): the bundled clips in turn from number `first` on, a
    pause after each, again and again, cut at the end. Takes 64 kB a second, and little more while it is made."""
    voices = _voices()
    turns = itertools.islice(itertools.cycle(voices), first % len(voices), None)
    samples = np.empty(round(seconds * SAMPLE_RATE), dtype=np.float32)
    filled = 0
    while filled < len(samples):
        piece = next(turns)[: len(samples) - filled]
        samples[filled : filled + len(piece)] = piece
        filled += len(piece)
    return samples


def lengths(count: int) -> list[float]:
    """Seconds, spread evenly from 1 to 20, in an order by chance that is always the same."""
    spread = np.linspace(SHORTEST, LONGEST, count)
    return [float(seconds) for seconds in np.random.default_rng(SEED).permutation(spread)]


def recordings(lengths: Iterable[float]) -> list[Recording]:
    """Files of these lengths, in seconds, each beginning with another clip."""
    return [_recording(joined(seconds, first=number)) for number, seconds in enumerate(lengths)]


def _recording(samples: Samples) -> Recording:
    return Recording(wav_bytes(samples), len(samples) / SAMPLE_RATE)


@functools.cache
def _voices() -> list[Samples]:
    """The bundled clips in which somebody speaks, with their pauses."""
    pause = np.zeros(int(PAUSE * SAMPLE_RATE), dtype=np.float32)
    paths = [clip.path for clip in bundled_clips() if clip.language]
    return [np.concatenate([audio.load(path, limits=Limits()).samples, pause]) for path in paths]
