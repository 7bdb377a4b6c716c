"""A turn: what somebody says in one go, however long, as segments that a model can take."""

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

SILENCE = 1e-12  # mean square, -120 dB of full scale: keeps the logarithm finite

# A segment is decoded anew for each second that is added to it, so its length bounds the cost of a second of sound:
# (1 + 2 + … + 12) / 12 + 1 = 7.5 s are decoded for it. 12 s hold three or four sentences, and the first one is told
# long before.
LONGEST = 12.0  # seconds
# From here on a pause ends the segment. The pauses in Silero's sense end the turn; these are shorter ones.
PAUSES_FROM = 8.0  # seconds
PAUSE_LEVEL = -20.0  # dB relative to the segment: a breath between words, while the stop in a word is shorter

LAWS = ("audio/pcmu", "audio/pcma")  # μ-law and A-law, in OpenAI's names
RATE = 8000  # Hz; there is no other


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


class AudioBuffer:
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


@dataclass(eq=False)
class Turn:
    """From sample `start` of the sound; once it is over, up to sample `end`.

    `cuts` are the segments that are whole but not yet decoded; `open` is the first sample of the one that still grows.
    """

    id: str
    prompt: str
    start: int
    words: PartialTranscript
    open: int
    end: int | None = None
    cuts: deque[Samples] = field(default_factory=deque)
    heard: int = 0  # samples of the growing segment that were decoded in the meantime
    failure: KitError | None = None  # why a segment of it could not be decoded

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        assert self.end is not None, "the turn is not over"
        return (self.end - self.start) / SAMPLE_RATE

    def cut(self, tape: AudioBuffer, *, longest: float) -> None:
        """End the growing segment if it must end, or may and there is a pause.

        It ends where it is quietest, in its later half and behind all words of it that were told.
        """
        length = tape.end - self.open
        if length < min(PAUSES_FROM, longest) * SAMPLE_RATE:
            return
        samples = tape.between(self.open, tape.end)
        reach = 0 if self.cuts else self.words.reach
        place, level = quietest(samples, earliest=max(reach, length // 2))
        if level < PAUSE_LEVEL or length >= longest * SAMPLE_RATE:
            self.cuts.append(samples[:place])
            self.open, self.heard = self.open + place, 0

    def close(self, tape: AudioBuffer, at: int) -> None:
        """It is over at sample `at`."""
        self.end = max(at, self.open)
        if self.end > self.open:
            self.cuts.append(tape.between(self.open, self.end))


def decode(data: bytes, law: str) -> bytes:
    """One byte a sample → 16-bit PCM, little-endian."""
    return _table(law)[np.frombuffer(data, dtype=np.uint8)].tobytes()


@cache
def _table(law: str) -> npt.NDArray[np.int16]:
    """The sample of each of the 256 codes: sign, segment (3 bits), step within it (4 bits). Both laws are scaled to 16
    bits: μ-law has 14, A-law 13."""
    codes = np.arange(256)
    codes = ~codes & 0xFF if law == "audio/pcmu" else codes ^ 0x55
    segment, step = (codes & 0x70) >> 4, codes & 0x0F
    if law == "audio/pcmu":
        size, negative = (((step << 3) + 0x84) << segment) - 0x84, (codes & 0x80) != 0
    else:
        size, negative = (step << 4) + 8, (codes & 0x80) == 0
        size = np.where(segment > 0, (size + 0x100) << np.maximum(segment - 1, 0), size)
    return np.where(negative, -size, size).astype("<i2")
