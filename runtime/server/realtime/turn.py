"""A turn: what somebody says without a longer pause, cut into segments that the model can take; and the sample buffer,
resampling and G.711."""

import math
from collections import deque
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
import soxr

from env.errors import KitError
from runtime.audio import SAMPLE_RATE, Samples
from runtime.audio.segment import BLOCK, PAUSE
from runtime.server.realtime.local_agreement import PartialTranscript

POWER_FLOOR = 1e-12  # mean square, -120 dB of full scale: keeps the logarithm finite

# A segment is decoded anew for each second that is added to it, so its length bounds the cost of a second of
# audio: (1 + 2 + … + 12) / 12 + 1 = 7.5 s are decoded for it. 12 s hold three or four sentences, and the first one is
# sent long before.
MAX_SEGMENT_SECONDS = 12.0
# From here on a pause ends the segment; a shorter one than ends the turn by voice activity detection.
MIN_CUT_SECONDS = 8.0
PAUSE_LEVEL_DB = -20.0  # dB relative to the segment: a breath between words, while the stop in a word is shorter

G711_TYPES = ("audio/pcmu", "audio/pcma")  # μ-law and A-law, in OpenAI's names
G711_RATE = 8000  # Hz; there is no other


class Resampler:
    """Resamples 16-bit little-endian mono PCM at `rate` Hz to float samples at 16 kHz, chunk by chunk, with the result
    of resampling all at once."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._stream = self._new()

    def convert(self, pcm: bytes) -> Samples:
        """Resample an even number of bytes; soxr keeps back some 10 ms."""
        samples: Samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(2**15)
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def flush(self) -> Samples:
        """Return what was kept back, and start anew."""
        last, self._stream = self._stream, self._new()
        nothing = np.empty(0, dtype=np.float32)
        return nothing if last is None else last.resample_chunk(nothing, last=True)

    def _new(self) -> soxr.ResampleStream | None:
        if self._rate == SAMPLE_RATE:
            return None
        return soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


class AudioBuffer:
    """Samples at 16 kHz, numbered from the session's start; old ones are dropped."""

    def __init__(self) -> None:
        self._kept: Samples = np.empty(0, dtype=np.float32)
        self._start = 0

    @property
    def start(self) -> int:
        """The number of the first sample that is kept."""
        return self._start

    @property
    def end(self) -> int:
        """The number of samples received so far."""
        return self._start + len(self._kept)

    def append(self, samples: Samples) -> None:
        self._kept = np.concatenate([self._kept, samples])

    def between(self, start: int, end: int) -> Samples:
        """Copy samples `start` to `end`, exclusive; all must be kept."""
        return self._kept[start - self._start : end - self._start].copy()

    def forget(self, before: int) -> None:
        """Drop all samples before that one."""
        if before > self._start:
            self._kept, self._start = self._kept[before - self._start :].copy(), before


def quietest_point(samples: Samples, *, earliest: int) -> tuple[int, float]:
    """Return the middle of the quietest 200 ms that start at sample `earliest` or later, and their level in dB relative
    to all of `samples`. If less than 200 ms remain: the end, and 0 dB."""
    power = _power(samples)
    windows = np.convolve(power, np.full(PAUSE, 1 / PAUSE), mode="valid") if len(power) >= PAUSE else power[:0]
    first = math.ceil(earliest / BLOCK)
    windows = windows[first:]
    if not len(windows):
        return len(samples), 0.0
    point = int(np.argmin(windows))
    level = 10 * np.log10((windows[point] + POWER_FLOOR) / (power.mean() + POWER_FLOOR))
    return (first + point + PAUSE // 2) * BLOCK, float(level)


def _power(samples: Samples) -> npt.NDArray[np.float32]:
    """Mean square of each block of 10 ms."""
    count = len(samples) // BLOCK
    blocks = samples[: count * BLOCK].reshape(count, BLOCK)
    power: npt.NDArray[np.float32] = np.einsum("ij,ij->i", blocks, blocks) / BLOCK
    return power


@dataclass(eq=False)
class Turn:
    """A turn, from sample `start` to, once it has ended, sample `end`.

    `cuts` are its complete segments that are not decoded yet; `open` is the first sample of the growing one.
    """

    id: str
    prompt: str
    start: int
    partial: PartialTranscript
    open: int
    end: int | None = None
    cuts: deque[Samples] = field(default_factory=deque)
    decoded_samples: int = 0  # samples of the growing segment that were decoded in the meantime
    failure: KitError | None = None  # why a segment of it could not be decoded

    @property
    def seconds(self) -> float:
        """The duration of a turn that has ended."""
        assert self.end is not None, "the turn is not over"
        return (self.end - self.start) / SAMPLE_RATE

    def cut(self, buffer: AudioBuffer, *, longest: float) -> None:
        """Complete the growing segment if it has its full length, or is long enough and has a pause.

        It is cut at the quietest point of its later half, behind the words that are confirmed.
        """
        length = buffer.end - self.open
        if length < min(MIN_CUT_SECONDS, longest) * SAMPLE_RATE:
            return
        samples = buffer.between(self.open, buffer.end)
        earliest = 0 if self.cuts else self.partial.confirmed_samples
        point, level = quietest_point(samples, earliest=max(earliest, length // 2))
        if level < PAUSE_LEVEL_DB or length >= longest * SAMPLE_RATE:
            self.cuts.append(samples[:point])
            self.open, self.decoded_samples = self.open + point, 0

    def close(self, buffer: AudioBuffer, at: int) -> None:
        self.end = max(at, self.open)
        if self.end > self.open:
            self.cuts.append(buffer.between(self.open, self.end))


def decode_g711(data: bytes, law: str) -> bytes:
    """Decode G.711, one byte per sample, to 16-bit little-endian PCM."""
    return _table(law)[np.frombuffer(data, dtype=np.uint8)].tobytes()


@cache
def _table(law: str) -> npt.NDArray[np.int16]:
    """The samples of all 256 codes: sign, segment (3 bits), step within it (4 bits). Both laws are scaled to 16 bits:
    μ-law has 14, A-law 13."""
    codes = np.arange(256)
    codes = ~codes & 0xFF if law == "audio/pcmu" else codes ^ 0x55
    segment, step = (codes & 0x70) >> 4, codes & 0x0F
    if law == "audio/pcmu":
        size, negative = (((step << 3) + 0x84) << segment) - 0x84, (codes & 0x80) != 0
    else:
        size, negative = (step << 4) + 8, (codes & 0x80) == 0
        size = np.where(segment > 0, (size + 0x100) << np.maximum(segment - 1, 0), size)
    return np.where(negative, -size, size).astype("<i2")
