"""Many clients of a server at once, in a process of their own: a server in this process shall not share the
interpreter's lock with those who ask it."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from env.errors import KitError
from runtime.measure.apart import Pipe, apart
from runtime.measure.asking import Outcome, ask
from runtime.measure.remote import Remote
from runtime.measure.speech import Recording

BREATH = 1.0  # seconds that a client waits after a failure, so that one who is refused does not ask in a circle
SHED = "429 "  # the failure of a request that the server, or its limit for a caller, had no place for


@dataclass(frozen=True)
class Level:
    """What came of the requests of so many clients, or of such a rate. `lost` says why fewer than planned were asked:
    the server was not ready any more; empty where it was."""

    outcomes: tuple[Outcome, ...]
    lost: str = ""

    @property
    def answered(self) -> list[Outcome]:
        """Those with a transcript."""
        return [outcome for outcome in self.outcomes if not outcome.failure]

    @property
    def failures(self) -> Counter[str]:
        """How many requests failed, by the words for it."""
        return Counter(outcome.failure for outcome in self.outcomes if outcome.failure)

    @property
    def elapsed(self) -> float:
        """Seconds from when the first request was due to when the last transcript ended, 0 where there is none."""
        return max((outcome.ended for outcome in self.answered), default=self._begun) - self._begun

    @property
    def throughput(self) -> float:
        """Seconds of audio transcribed per second; the end, when fewer and fewer clients ask, is part of it."""
        return sum(outcome.audio_seconds for outcome in self.answered) / self.elapsed if self.elapsed else 0.0

    @property
    def rate(self) -> float:
        """Requests answered per second."""
        return len(self.answered) / self.elapsed if self.elapsed else 0.0

    @property
    def _begun(self) -> float:
        return min((outcome.due for outcome in self.outcomes), default=0.0)


class Clients:
    """Those who ask, seen from here. Each method raises KitError where their process has ended."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def closed(self, clients: int, requests: int) -> Level:
        """So many requests by so many clients, each of which asks again when it is answered."""
        return self._told("closed", clients, requests)

    def arriving(self, times: Sequence[float]) -> Level:
        """Requests at these times, in seconds from now, whatever is answered. Each is due then: that it may be asked
        late counts as the server's delay."""
        return self._told("arriving", times)

    def _told(self, what: str, *given: object) -> Level:
        self._pipe.send((what, given))
        level = self._pipe.recv()
        assert isinstance(level, Level)
        return level


@contextmanager
def clients(url: str, sounds: Sequence[Recording]) -> Iterator[Clients]:
    """Clients of the server at `url`, which ask for these recordings in turn, with the key in OPENAI_API_KEY. They are
    gone with the block."""
    with apart(_serve, url, sounds, name="the process of the clients") as pipe:
        yield Clients(pipe)


def _serve(pipe: Pipe, url: str, sounds: Sequence[Recording]) -> None:
    while True:
        name, given = pipe.recv()
        with Remote(url) as server:  # anew, as the server closes what is idle for some seconds
            pipe.send(getattr(_Crowd(server, sounds), name)(*given))


class _Crowd:
    """Those who ask, for one level."""

    def __init__(self, server: Remote, sounds: Sequence[Recording]) -> None:
        self._server, self._sounds = server, sounds
        self._over = threading.Event()
        self._lost = ""

    def closed(self, clients: int, requests: int) -> Level:
        left = self._wanted(requests)

        def work(_: int) -> list[Outcome]:
            return [self._ask(sound, breath=BREATH) for sound in itertools.takewhile(self._go_on, left)]

        with ThreadPoolExecutor(clients) as pool:
            return self._level(outcome for outcomes in pool.map(work, range(clients)) for outcome in outcomes)

    def arriving(self, times: Sequence[float]) -> Level:
        begun = time.perf_counter()
        asked = []
        with ThreadPoolExecutor(len(times)) as pool:  # it has a thread only for each request that waits
            for after, sound in zip(times, self._wanted(len(times)), strict=True):
                if self._over.wait(max(0.0, begun + after - time.perf_counter())):
                    break
                asked.append(pool.submit(self._ask, sound, due=begun + after))
            return self._level(future.result() for future in asked)

    def _wanted(self, count: int) -> Iterator[Recording]:
        """Recordings, of which each thread may take the next."""
        return itertools.islice(itertools.cycle(self._sounds), count)

    def _go_on(self, _: Recording) -> bool:
        return not self._over.is_set()

    def _ask(self, sound: Recording, *, due: float | None = None, breath: float = 0.0) -> Outcome:
        """Ask; after a failure, take so many seconds of breath."""
        outcome = ask(self._server, sound, due=due)
        if outcome.failure:
            if not outcome.failure.startswith(SHED):
                self._check()
            self._over.wait(breath)
        return outcome

    def _check(self) -> None:
        """Nobody asks any more if the server is not ready."""
        try:
            self._server.check_ready()
        except KitError as error:
            self._lost = error.reason
            self._over.set()

    def _level(self, outcomes: Iterable[Outcome]) -> Level:
        found = tuple(outcomes)
        return Level(found, self._lost)
