"""Long audio → segments that a model can take, cut where nobody speaks.

Loudness is judged in blocks of 10 ms, without the constant offset that some recorders add.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.audio import SAMPLE_RATE, Samples

BLOCK = SAMPLE_RATE // 100  # samples in 10 ms

PAUSE = 20  # blocks: a good place to cut is quiet for 200 ms, longer than the stop inside a word
SEARCHED = 0.4  # the part of the longest segment in which the place is looked for
DISTANCE_PENALTY = (
    6.0  # dB: how much quieter a place at the far edge of that part must be to win over the place wished for
)
FLOOR = -80.0  # dB of full scale; what is quieter counts as this

SYLLABLE = 3  # blocks: 30 ms, shorter than any sound that carries a word
SILENCE = -70.0  # dB of full scale: see is_silent


@dataclass(frozen=True, eq=False)
class AudioSegment:
    """A stretch of audio: `samples` of shape (n,) at 16 kHz, from `start` to `end` in seconds."""

    samples: Samples
    start: float
    end: float


def split(samples: Samples, *, longest: float) -> list[AudioSegment]:
    """Samples of shape (n,) at 16 kHz in segments of at most `longest` seconds; joined, they are the samples again.

    A segment ends at the quietest place, rather late than early, in the last 40 % of the time that it may take. Once no
    more than 1.6 times `longest` remains, the cut is near the middle of it. So no segment is shorter than 0.3 times
    `longest`, unless `samples` are. No samples make no segment. Raises ValueError if `longest` is less than a sample.
    """
    most = int(longest * SAMPLE_RATE)
    if most < 1:
        raise ValueError(f"a segment of at most {longest} s holds no sample")
    if not len(samples):
        return []
    levels = _levels(samples, PAUSE)
    bounds = [0]
    while len(samples) - bounds[-1] > most:
        bounds.append(_next_bound(levels, bounds[-1], len(samples), most))
    bounds.append(len(samples))
    return [AudioSegment(samples[a:b], a / SAMPLE_RATE, b / SAMPLE_RATE) for a, b in itertools.pairwise(bounds)]


def is_silent(samples: Samples) -> bool:
    """Whether samples of shape (n,) at 16 kHz hold no signal to speak of: no 30 ms above -70 dB of full scale.

    A quiet room is recorded at about -60 dB and a distant voice at -50 dB, while the rounding to 16 bits makes noise of
    -101 dB. What stays below -70 dB is a muted microphone or a pause that was edited in, not a soft voice.
    """
    return not len(samples) or bool(_levels(samples, SYLLABLE).max() < SILENCE)


def _next_bound(levels: npt.NDArray[np.float64], start: int, end: int, most: int) -> int:
    """Where the segment that begins at sample `start` ends, if more than `most` samples remain."""
    searched = SEARCHED * most
    if end - start > 2 * most - searched:
        wished = latest = start + most
        earliest = start + math.ceil(most - searched)
    else:
        wished = (start + end) // 2
        earliest, latest = max(wished - int(searched / 2), end - most), min(wished + int(searched / 2), start + most)
    places = np.arange(math.ceil(earliest / BLOCK), latest // BLOCK + 1)
    if not len(places):
        return wished
    around = np.clip(places - PAUSE // 2, 0, len(levels) - 1)
    penalty = DISTANCE_PENALTY * np.abs(places * BLOCK - wished) / searched
    return int(places[np.argmin(levels[around] + penalty)]) * BLOCK


def _levels(samples: Samples, width: int) -> npt.NDArray[np.float64]:
    """Level in dB of full scale of every `width` blocks in a row; less than a block at the end is left out."""
    whole = len(samples) // BLOCK
    blocks = samples[: whole * BLOCK].reshape(whole, BLOCK) if whole else samples[np.newaxis]
    window = np.full(min(width, len(blocks)), 1 / min(width, len(blocks)))
    power = np.convolve(np.einsum("ij,ij->i", blocks, blocks) / blocks.shape[1], window, mode="valid")
    offset = np.convolve(blocks.mean(axis=1), window, mode="valid")
    levels: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(power - offset**2, 10 ** (FLOOR / 10)))
    return levels
