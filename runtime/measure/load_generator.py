"""Work in a process of its own, so that neither memory nor the interpreter's lock is shared with what is measured."""

import itertools
import json
import multiprocessing
import signal
import statistics
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from env.errors import KitError
from runtime.measure.client import RemoteServer, RequestOutcome, ask
from runtime.measure.synthetic_audio import Recording
from runtime.server.app import create_app
from runtime.server.http import run_http_server
from runtime.server.service import Service
from runtime.server.state import ServerState
from runtime.transcriber import Transcriber

FAREWELL = 10.0  # seconds for the process to end in once the pipe is closed

Pipe: TypeAlias = "Connection[Any, Any]"

BREATH = 1.0  # seconds that a client waits after a failure, so that one who is refused does not ask in a circle
SHED = "429 "  # the failure of a request that the server, or its limit for a caller, had no place for

ADDRESS = "127.0.0.1"
PATIENCE = 600.0  # seconds for an answer

LONE = 3.0  # seconds of the clip that shows what HTTP adds

Ask = Callable[[bytes], object]  # has a file transcribed, and returns when it is


@contextmanager
def apart(work: Callable[..., None], *given: object, name: str) -> Iterator[Pipe]:
    """A pipe to `work(pipe, *given)`, which runs in a new process that ends with the block; Ctrl-C is this one's alone.

    Raises KitError, which calls it `name`, where it ends before the block. It is killed where the block fails, or where
    it does not end by itself: one that is killed cannot give back what it shares with this one, such as semaphores.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_begin, args=(work, there, *given), daemon=True)
    process.start()
    there.close()
    try:
        yield here
        here.close()
        process.join(FAREWELL)
    except (EOFError, ConnectionError):
        raise KitError(name, "ended before it was asked to", "its last words are above") from None
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


def _begin(work: Callable[..., None], pipe: Pipe, *given: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):  # whoever is at the other end was killed
        work(pipe, *given)


@dataclass(frozen=True)
class Level:
    """What came of the requests of so many clients, or of such a rate. `lost` says why fewer than planned were asked:
    the server was not ready any more; empty where it was."""

    outcomes: tuple[RequestOutcome, ...]
    lost: str = ""

    @property
    def answered(self) -> list[RequestOutcome]:
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
        with RemoteServer(url) as server:  # anew, as the server closes what is idle for some seconds
            pipe.send(getattr(_LoadGenerator(server, sounds), name)(*given))


class _LoadGenerator:
    """Those who ask, for one level."""

    def __init__(self, server: RemoteServer, sounds: Sequence[Recording]) -> None:
        self._server, self._sounds = server, sounds
        self._over = threading.Event()
        self._lost = ""

    def closed(self, clients: int, requests: int) -> Level:
        left = self._wanted(requests)

        def work(_: int) -> list[RequestOutcome]:
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

    def _ask(self, sound: Recording, *, due: float | None = None, breath: float = 0.0) -> RequestOutcome:
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

    def _level(self, outcomes: Iterable[RequestOutcome]) -> Level:
        found = tuple(outcomes)
        return Level(found, self._lost)


@dataclass(frozen=True)
class ReadyServer:
    """A server that is ready: its port, and what transcribes for it."""

    port: int
    service: Service


@contextmanager
def serving(transcriber: Transcriber) -> Iterator[ReadyServer]:
    """Serve with a transcriber until the end of the block, without keys."""
    server_state = ServerState()
    with run_http_server(create_app(server_state), host=ADDRESS, port=0) as listener:
        service = Service(transcriber)
        server_state.ready(service)
        try:
            yield ReadyServer(listener.port, service)
        finally:
            listener.call(service.cancel_all)
            service.close()


class Client:
    """One connection, which is kept, and one request at a time on it."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(ADDRESS, port, timeout=PATIENCE)

    def send(self, file: bytes) -> None:
        """Ask for the transcript of a file."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n\r\n'
        body = head.encode() + file + f"\r\n--{boundary}--\r\n".encode()
        form = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        self._connection.request("POST", "/v1/audio/transcriptions", body, form)

    def receive(self) -> str:
        """The text. Raises KitError where the server answers anything else."""
        with self._connection.getresponse() as answer:
            content = answer.read().decode()
            if answer.status != 200:
                raise KitError("the server", f"answered {answer.status}: {content}")
        return str(json.loads(content)["text"])

    def transcribe(self, file: bytes) -> str:
        """Ask, and wait for the text."""
        self.send(file)
        return self.receive()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


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
    transcriber: Transcriber, server: ReadyServer, sounds: Sequence[Recording], *, clients: int, rounds: int
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


def overhead(transcriber: Transcriber, server: ReadyServer, sound: Recording, *, times: int) -> Overhead:
    """Transcribe one clip so many times directly and over HTTP, by turns, after once that is not counted."""
    with _connected(server, 1) as (ask,):
        turns = [(_timed(transcriber.transcribe, sound), _timed(ask, sound)) for _ in range(times + 1)][1:]
    direct, http = zip(*turns, strict=True)
    return Overhead(statistics.median(direct), statistics.median(http))


@contextmanager
def _connected(server: ReadyServer, count: int) -> Iterator[list[Ask]]:
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
