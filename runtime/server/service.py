"""From requests that come together to transcripts: bounded, awaited without threads, given up when nobody waits."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

from env.settings import Settings
from runtime import transcript
from runtime.engines import Decoded, Decoding, EngineError, Event
from runtime.errors import KitError
from runtime.server.deltas import Deltas
from runtime.server.errors import DecodingError, FullError, OverdueError, StoppingError
from runtime.server.workers import Workers
from runtime.transcriber import Prepared, Request, Transcriber
from runtime.transcript import Transcript

# Requests whose audio is in memory, for each utterance of a batch: enough that the engine finds company of like length
# for each. The others wait with their audio as it came, most of it on disk.
AHEAD = 4
READERS = min(4, os.cpu_count() or 1)  # threads that decode audio
FETCHERS = 16  # threads that fetch audio from URLs; a host that is slow keeps only these waiting


class Service:
    """Transcribes for many clients at once, on one event loop."""

    def __init__(self, transcriber: Transcriber) -> None:
        self.transcriber = transcriber
        self._desks = asyncio.Semaphore(AHEAD * self.settings.max_batch)
        self._readers = Workers(READERS, name="audio")
        self._fetchers = Workers(FETCHERS, name="url")
        self._running: set[asyncio.Task[Transcript]] = set()
        self._given_up = False

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.transcriber.settings

    @property
    def held(self) -> int:
        """Requests that wait or are worked on."""
        return len(self._running)

    def refuse_if_full(self) -> None:
        """Raises FullError where as many requests are held as may be."""
        most = self.settings.max_waiting
        if self.held >= most:
            raise FullError("the queue", f"holds {self.held} requests, the limit is {most}", "try again later")

    async def transcribe(
        self,
        request: Request,
        *,
        on_start: Callable[[], None] = lambda: None,
        on_text: Callable[[str], None] | None = None,
    ) -> Transcript:
        """Transcribe one file. `on_start` hears that its audio could be read, `on_text` each bit of text as it comes.

        Cancelled, it takes its segments out of the engine. Raises KitError: FullError at once, OverdueError after the
        longest time, StoppingError after `give_up`, DecodingError or EngineError from the engine, and others where
        audio, language or context cannot be used.
        """
        self.refuse_if_full()
        work = asyncio.ensure_future(self._work(request, on_start, on_text))
        self._running.add(work)
        seconds = self.settings.request_timeout_seconds
        try:
            return await asyncio.wait_for(work, seconds)
        except asyncio.TimeoutError:
            raise OverdueError("the request", f"took longer than the limit of {seconds:g} s") from None
        except asyncio.CancelledError:
            if self._given_up:
                raise StoppingError("the server", "ends before this request is done") from None
            raise
        finally:
            self._running.discard(work)

    def give_up(self) -> None:
        """End all requests that are held. To be called on the event loop."""
        self._given_up = True
        for work in self._running:
            work.cancel()

    def close(self) -> None:
        """Let the threads end."""
        self._readers.shutdown()
        self._fetchers.shutdown()

    async def _work(
        self, request: Request, on_start: Callable[[], None], on_text: Callable[[str], None] | None
    ) -> Transcript:
        pool = self._fetchers if isinstance(request.source, str) else self._readers
        async with self._desks:
            prepared = await asyncio.get_running_loop().run_in_executor(pool, self.transcriber.prepare, request)
            on_start()
            deltas = on_text and Deltas(raw=self.transcriber.text, language=prepared.language, tell=on_text)
            return await self._decode(prepared, deltas or None)

    async def _decode(self, prepared: Prepared, deltas: Deltas | None) -> Transcript:
        with _submitted(self.transcriber, prepared) as decodings:
            arrivals = iter([_arrivals(decoding, tokens=deltas is not None) for decoding in decodings])
            done: list[transcript.Segment] = []
            for cut, utterance in zip(prepared.cuts, prepared.utterances, strict=True):
                decoded = await _decoded(next(arrivals), deltas, prepared) if utterance else None
                done.append(prepared.heard(cut, decoded))
                if deltas:
                    deltas.end(done[-1])
            return prepared.joined(done)


@contextmanager
def _submitted(transcriber: Transcriber, prepared: Prepared) -> Iterator[Sequence[Decoding]]:
    """The segments in the engine; whatever ends the wait for them takes them out again."""
    decodings = transcriber.engine.submit(prepared.spoken)
    try:
        yield decodings
    except BaseException:
        for decoding in decodings:
            decoding.cancel()
        raise


def _arrivals(decoding: Decoding, *, tokens: bool) -> "asyncio.Queue[Event]":
    """What the engine tells about an utterance, brought onto the event loop; its end alone, unless tokens are asked."""
    loop = asyncio.get_running_loop()
    arrivals: asyncio.Queue[Event] = asyncio.Queue()

    def pass_on(event: Event) -> None:
        if tokens or not isinstance(event, int):
            loop.call_soon_threadsafe(arrivals.put_nowait, event)

    decoding.add_listener(pass_on)
    return arrivals


async def _decoded(arrivals: "asyncio.Queue[Event]", deltas: Deltas | None, prepared: Prepared) -> Decoded:
    """Wait for the end of an utterance."""
    tokens: list[int] = []
    while isinstance(event := await arrivals.get(), int):
        tokens.append(event)
        if deltas and arrivals.empty():
            deltas.grow(tokens)
    if isinstance(event, EngineError):
        raise event
    if isinstance(event, CancelledError):
        raise StoppingError("the engine", "ends before this request is done")
    if isinstance(event, BaseException):
        words = str(event) if isinstance(event, KitError) else f"{type(event).__name__}: {event}"
        raise DecodingError(prepared.audio.source, f"cannot be decoded: {words}") from event
    return event
