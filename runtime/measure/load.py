"""What decoding together brings: many clients at once against the same clips one at a time, by turns, in one run.

The clips are the bundled ones, joined with pauses. What the model makes of them is not judged; each is heard by the
same path as any file, from samples on.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from runtime import audio
from runtime.audio import SAMPLE_RATE, Audio
from runtime.measure.smoke import bundled_clips
from runtime.transcriber import Transcriber, limits

SHORTEST, LONGEST = 1.0, 20.0  # seconds
PAUSE = 0.4  # seconds between what is joined
SEED = 4  # of lengths' order and of what is joined, so that runs can be compared


@dataclass(frozen=True)
class Pass:
    """All clips once, by so many clients: seconds it took, and those from asking to answer, clip by clip."""

    clients: int
    audio_seconds: float
    elapsed: float
    latencies: tuple[float, ...]

    @property
    def throughput(self) -> float:
        """Seconds of audio per second."""
        return self.audio_seconds / self.elapsed

    def percentile(self, percent: int) -> float:
        """The latency, in seconds, that `percent` of the clips (1 to 99) do not exceed."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True)
class Round:
    """One clip at a time, then many clients."""

    alone: Pass
    together: Pass

    @property
    def ratio(self) -> float:
        """How many times as much audio per second the clients get."""
        return self.together.throughput / self.alone.throughput


def clips(transcriber: Transcriber, count: int) -> list[Audio]:
    """So many clips, their lengths spread evenly from 1 to 20 s, in an order by chance that is always the same."""
    spoken = [clip.path for clip in bundled_clips() if clip.language]
    voices = [audio.load(path, limits=limits(transcriber.settings)).samples for path in spoken]
    chance = np.random.default_rng(SEED)
    made = []
    for number, seconds in enumerate(chance.permutation(np.linspace(SHORTEST, LONGEST, count))):
        size = int(seconds * SAMPLE_RATE)
        pieces = [np.zeros(0, dtype=np.float32)]
        while sum(map(len, pieces)) < size:
            pieces += [voices[chance.integers(len(voices))], np.zeros(int(PAUSE * SAMPLE_RATE), dtype=np.float32)]
        made.append(Audio(np.concatenate(pieces)[:size], f"clip {number + 1}"))
    return made


def run(transcriber: Transcriber, sounds: Sequence[Audio], *, clients: int, rounds: int) -> Iterator[Round]:
    """Measure so many rounds, after one pass of the clients that is not counted, because it pays for warming up.

    Raises KitError where a clip cannot be transcribed.
    """
    _measure(transcriber, sounds, clients)
    for _ in range(rounds):
        yield Round(_measure(transcriber, sounds, 1), _measure(transcriber, sounds, clients))


def _measure(transcriber: Transcriber, sounds: Sequence[Audio], clients: int) -> Pass:
    """Each client asks for the next clip when it has the answer to its last."""

    def ask(sound: Audio) -> float:
        asked = time.perf_counter()
        transcriber.transcribe(sound)
        return time.perf_counter() - asked

    with ThreadPoolExecutor(clients) as threads:
        started = time.perf_counter()
        latencies = tuple(threads.map(ask, sounds))
        elapsed = time.perf_counter() - started
    return Pass(clients, sum(sound.seconds for sound in sounds), elapsed, latencies)
