"""Sound as it comes: PCM of any rate → 16 kHz, kept as long as somebody may ask for it."""

import math

import numpy as np
import numpy.typing as npt
import soxr

from runtime.audio import SAMPLE_RATE, Samples
from runtime.audio.segment import BLOCK, PAUSE

SILENCE = 1e-12  # mean square, -120 dB of full scale: keeps the logarithm finite


class Resampler:
    """16-bit mono PCM, little-endian, at `rate` Hz → samples at 16 kHz, as if all of it had been resampled at once."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._stream = self._new()

    def convert(self, pcm: bytes) -> Samples:
        """What comes out so far of an even number of bytes; soxr keeps some 10 ms back."""
        samples: Samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(2**15)
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def flush(self) -> Samples:
        """What was kept back; then it begins anew."""
        last, self._stream = self._stream, self._new()
        nothing = np.empty(0, dtype=np.float32)
        return nothing if last is None else last.resample_chunk(nothing, last=True)

    def _new(self) -> soxr.ResampleStream | None:
        if self._rate == SAMPLE_RATE:
            return None
        return soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


class Tape:
    """Samples at 16 kHz by their number since the beginning, without those that were forgotten."""

    def __init__(self) -> None:
        self._kept: Samples = np.empty(0, dtype=np.float32)
        self._start = 0

    @property
    def start(self) -> int:
        """The first sample that is kept."""
        return self._start

    @property
    def end(self) -> int:
        """The number of samples that came."""
        return self._start + len(self._kept)

    def append(self, samples: Samples) -> None:
        """Keep what comes next."""
        self._kept = np.concatenate([self._kept, samples])

    def between(self, start: int, end: int) -> Samples:
        """A copy of the samples from `start` up to `end`, of which all must be kept."""
        return self._kept[start - self._start : end - self._start].copy()

    def forget(self, before: int) -> None:
        """Keep nothing from before that sample, which is none that is still to come."""
        if before > self._start:
            self._kept, self._start = self._kept[before - self._start :].copy(), before


def quietest(samples: Samples, *, earliest: int) -> tuple[int, float]:
    """The middle of the quietest 200 ms that begin at sample `earliest` or later, and their level in dB relative to all
    of `samples`. Where less than that remains, the end, and 0 dB."""
    power = _power(samples)
    windows = np.convolve(power, np.full(PAUSE, 1 / PAUSE), mode="valid") if len(power) >= PAUSE else power[:0]
    first = math.ceil(earliest / BLOCK)
    windows = windows[first:]
    if not len(windows):
        return len(samples), 0.0
    place = int(np.argmin(windows))
    level = 10 * np.log10((windows[place] + SILENCE) / (power.mean() + SILENCE))
    return (first + place + PAUSE // 2) * BLOCK, float(level)


def _power(samples: Samples) -> npt.NDArray[np.float32]:
    """Mean square of each 10 ms."""
    whole = len(samples) // BLOCK
    blocks = samples[: whole * BLOCK].reshape(whole, BLOCK)
    power: npt.NDArray[np.float32] = np.einsum("ij,ij->i", blocks, blocks) / BLOCK
    return power
