"""What decoding together brings, and what HTTP costs, measured by turns in one run.

Many clients over HTTP stand against the same clips one at a time without it. The clips are the bundled ones, joined
with pauses, as files. What the model makes of them is not judged.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from runtime.measure.loopback import Client, Serving
from runtime.measure.speech import Recording
from runtime.transcriber import Transcriber

LONE = 3.0  # seconds of the clip that shows what HTTP adds

Ask = Callable[[bytes], object]  # has a file transcribed, and returns when it is


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
    """One clip at a time in this process, then many clients over HTTP."""

    alone: Pass
    together: Pass

    @property
    def ratio(self) -> float:
        """How many times as much audio per second the clients get."""
        return self.together.throughput / self.alone.throughput


@dataclass(frozen=True)
class Overhead:
    """The same clip on its own, directly and over HTTP: medians, in seconds."""

    direct: float
    http: float

    @property
    def added(self) -> float:
        """Seconds that HTTP and its queue add."""
        return self.http - self.direct


def run(
    transcriber: Transcriber, server: Serving, sounds: Sequence[Recording], *, clients: int, rounds: int
) -> Iterator[Round]:
    """Measure so many rounds, after one pass of the clients that is not counted, because it pays for warming up.

    Raises KitError where a clip cannot be transcribed.
    """

    def together() -> Pass:
        with _connected(server, clients) as asks:  # anew, as the server closes what is idle for some seconds
            return _measure(asks, sounds)

    together()
    for _ in range(rounds):
        yield Round(_measure([transcriber.transcribe], sounds), together())


def overhead(transcriber: Transcriber, server: Serving, sound: Recording, *, times: int) -> Overhead:
    """Transcribe one clip so many times directly and over HTTP, by turns, after once that is not counted."""
    with _connected(server, 1) as (ask,):
        turns = [(_timed(transcriber.transcribe, sound), _timed(ask, sound)) for _ in range(times + 1)][1:]
    direct, http = zip(*turns, strict=True)
    return Overhead(statistics.median(direct), statistics.median(http))


@contextmanager
def _connected(server: Serving, count: int) -> Iterator[list[Ask]]:
    """Clients of a server."""
    clients = [Client(server.port) for _ in range(count)]
    try:
        yield [client.transcribe for client in clients]
    finally:
        for client in clients:
            client.close()


def _measure(asks: Sequence[Ask], sounds: Sequence[Recording]) -> Pass:
    """Each client asks for the next clip when it has the answer to its last."""
    left = iter(sounds)  # of which each takes the next

    def work(ask: Ask) -> list[float]:
        return [_timed(ask, sound) for sound in left]

    with ThreadPoolExecutor(len(asks)) as threads:
        started = time.perf_counter()
        latencies = [seconds for done in threads.map(work, asks) for seconds in done]
        elapsed = time.perf_counter() - started
    return Pass(len(asks), sum(sound.seconds for sound in sounds), elapsed, tuple(latencies))


def _timed(ask: Ask, sound: Recording) -> float:
    asked = time.perf_counter()
    ask(sound.file)
    return time.perf_counter() - asked
