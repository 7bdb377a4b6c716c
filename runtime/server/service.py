"""From requests that come together to transcripts: bounded, awaited without threads, given up when nobody waits."""

import asyncio
import contextvars
import copy
import functools
import itertools
import logging
import math
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from env.errors import KitError
from env.settings import Settings
from runtime import audio, transcript
from runtime.audio import TooLongError
from runtime.audio.segment import AudioSegment
from runtime.engines import Decoded, Engine, EngineError, Utterance
from runtime.model.device import trim_heap
from runtime.sandbox import Cancellation
from runtime.server.engine_events import Deltas, await_end, events_of, submitted
from runtime.server.errors import DecodingError, FullError, OverdueError, SessionsFullError, StoppingError
from runtime.server.realtime.pacing import CatchUpLimiter
from runtime.server.request_context import RequestTimer
from runtime.server.spool import Spool, Upload, most_in_memory
from runtime.transcriber import Prepared, Request, Transcriber, limits
from runtime.transcript import Transcript
from runtime.urls import redact_url

T = TypeVar("T")

_Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# Requests whose audio is in memory, for each utterance of a batch: enough that the engine transformers finds company of
# like length for each. The others wait with their audio as it came, most of it on disk.
AHEAD = 4
# Seconds from which on audio counts as long. Long files have places of their own, fewer, so that neither is memory full
# of decoded audio, 64 kB a second, nor do short ones wait for them.
LONG = 300.0
DECODE_THREADS = min(4, os.cpu_count() or 1)  # audio that is decoded at once, and threads that write transcripts
BODIES = 16  # threads in which large bodies wait for a helper process
PARSERS = 2  # threads that parse small bodies, and messages of sessions, which must not wait for files
STOPPING = StoppingError("the server", "ends before this request is done")
FETCHED = "urls"  # to whom the room on disk counts that fetched files take, whoever asked for them
FETCHERS = 16  # threads that fetch audio from URLs; a host that is slow keeps only these waiting


log = logging.getLogger(__name__)

# Bodies and sessions between two times. Of 500 uploads that wait, glibc keeps 100 MiB and more of what parsing them
# took, and 3 to 6 MiB of each session in which somebody spoke; to give it back takes a millisecond or a few.
EVERY = 64

_ended = itertools.count(1)


class Workers(Executor):
    """A fixed number of threads. Unlike those of ThreadPoolExecutor, they never keep the process from ending: one may
    be waiting for another host."""

    def __init__(self, count: int, *, name: str) -> None:
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Have `fn` called in one of the threads."""
        future: Future[T] = Future()
        self._work.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - Executor's
        """Let the threads end after what was submitted before."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while work := self._work.get():
            future, function, args, kwargs = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - it is for whoever awaits the result
                    future.set_exception(error)
            del work, future, function, args, kwargs  # which hold what may be large


def concurrency_limits(engine: Engine) -> int:
    """Short files whose audio is in memory. An engine that has the model elsewhere decodes whatever comes as soon as
    there is room: as many as it decodes at once, and those that are being read, keep it busy."""
    together = engine.status().most_together
    return AHEAD * together if engine.loaded else together + DECODE_THREADS


def long_files(engine: Engine, settings: Settings) -> int:
    """Long files whose audio is in memory: as many as fill the engine with their segments, and one to follow."""
    batch = engine.status().most_together * settings.segment_seconds
    if engine.loaded:
        batch = min(batch, settings.batch_audio_seconds)
    return 1 + math.ceil(batch / LONG)


class Service:
    """Transcribes for many clients at once, on one event loop."""

    def __init__(self, transcriber: Transcriber, *, on_trouble: Callable[[KitError], None] = lambda _: None) -> None:
        """`on_trouble` hears, on the event loop, what the engine could not decode, or that it has failed."""
        self.transcriber = transcriber
        self._on_trouble = on_trouble
        room, largest = self.settings.spool_most_mib, max(self.settings.upload_max_mib, self.settings.url_max_mib)
        self.spool = Spool(room << 20, max(room // 2, largest) << 20)
        short, long = concurrency_limits(transcriber.engine), long_files(transcriber.engine, self.settings)
        self._desks, self._long = asyncio.Semaphore(short), asyncio.Semaphore(long)
        self._readers = Workers(short + long, name="audio")  # which wait for helper processes, none for another
        self._bodies = Workers(BODIES, name="body")
        self._parsers = Workers(PARSERS, name="message")
        self._writers = Workers(DECODE_THREADS, name="transcript")
        self._fetchers = Workers(FETCHERS, name="url")
        self.hearing = CatchUpLimiter()
        self._running: set[asyncio.Task[Any]] = set()
        self._sessions: set[asyncio.Task[Any]] = set()
        self._over: KitError | None = None

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.transcriber.settings

    @property
    def held(self) -> int:
        """Requests that wait or are worked on, without sessions."""
        return len(self._running)

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    def refuse_if_full(self) -> None:
        """Raises FullError where as many requests are held as may be."""
        most = self.settings.max_waiting
        if self.held >= most:
            words = f"holds {self.held} requests, the limit is {most} (ASR_MAX_WAITING)"
            raise FullError("the queue", words, "try again later")

    def refuse_session_if_full(self) -> None:
        """Raises SessionsFullError where as many sessions are open as may be."""
        most = self.settings.max_sessions
        if self.sessions >= most:
            words = f"has {self.sessions} realtime sessions open, the limit is {most} (ASR_MAX_SESSIONS)"
            raise SessionsFullError("the server", words, "try again later")

    async def transcribe(
        self,
        request: Request,
        *,
        on_start: Callable[[], None] = lambda: None,
        on_text: Callable[[str], None] | None = None,
    ) -> Transcript:
        """Transcribe one file. `on_start` hears that its audio could be read, `on_text` each bit of text as it comes.

        Cancelled, it takes its segments out of the engine. Raises KitError: FullError at once, OverdueError after the
        longest time, the reason of `give_up` after it, DecodingError or EngineError from the engine, and others where
        audio, language or context cannot be used.
        """
        self.refuse_if_full()
        self._refuse_if_over()
        work = asyncio.ensure_future(self._work(request, on_start, on_text, RequestTimer()))
        self._running.add(work)
        seconds = self.settings.request_timeout_seconds
        try:
            return await asyncio.wait_for(work, seconds)
        except asyncio.TimeoutError:
            raise OverdueError("the request", f"took longer than the limit of {seconds:g} s") from None
        except asyncio.CancelledError:
            self._refuse_if_over()
            raise
        except (DecodingError, EngineError) as error:
            self._on_trouble(error)
            raise
        finally:
            self._running.discard(work)

    @contextmanager
    def session(self) -> Iterator[None]:
        """A place for the task that runs the block, for as long as it does.

        Raises SessionsFullError at once, and the reason of `give_up`, which cancels the task, after it.
        """
        self.refuse_session_if_full()
        self._refuse_if_over()
        task = asyncio.current_task()
        assert task, "a session is led by a task"
        self._sessions.add(task)
        try:
            yield
        except asyncio.CancelledError:
            self._refuse_if_over()
            raise
        finally:
            self._sessions.discard(task)

    async def decode(self, utterance: Utterance, *, name: str) -> Decoded:
        """Decode one utterance of a session; errors call it `name`.

        Cancelled, it takes it out of the engine. Raises OverdueError, StoppingError, DecodingError and EngineError.
        """
        seconds = self.settings.request_timeout_seconds
        try:
            with submitted(self.transcriber, [utterance]) as (decoding,):
                return await asyncio.wait_for(await_end(events_of(decoding, tokens=False), None, name), seconds)
        except asyncio.TimeoutError:
            raise OverdueError(name, f"took longer than the limit of {seconds:g} s") from None
        except (DecodingError, EngineError) as error:
            self._on_trouble(error)
            # `wait_for` holds on to what it raises, which holds on to `wait_for`, and to the samples here.
            raise copy.copy(error.with_traceback(None)) from error.__cause__

    async def read(self, function: Callable[[], T], cancellation: Cancellation) -> T:
        """What `function` gives of a large body, in a thread that may wait for a helper process.

        Cancelled, it has `cancellation` end that, and waits until the thread has done with its files.
        """
        reading = self._bodies.submit(function)
        try:
            return await asyncio.wrap_future(reading)
        except asyncio.CancelledError:
            if not reading.cancel():
                await asyncio.get_running_loop().run_in_executor(None, cancellation.cancel)
                await asyncio.gather(asyncio.wrap_future(reading), return_exceptions=True)
            raise

    async def write(self, function: Callable[[], T]) -> T:
        """What `function` writes of a transcript, in a thread: the captions of hours take a second."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, function)

    async def parse(self, function: Callable[[], T]) -> T:
        """What `function` gives of a small body or a message of a session, in a thread that waits for no file."""
        return await asyncio.get_running_loop().run_in_executor(self._parsers, function)

    def give_up(self, reason: KitError = STOPPING) -> None:
        """End all requests and sessions, and refuse others, for that reason. To be called on the event loop."""
        self._over = reason
        for work in self._running | self._sessions:
            work.cancel()

    def close(self) -> None:
        """Let the threads end."""
        for workers in (self._readers, self._bodies, self._parsers, self._writers, self._fetchers):
            workers.shutdown()

    def _refuse_if_over(self) -> None:
        if self._over:
            raise copy.copy(self._over) from None  # each request's own: what is raised holds on to where it was raised

    async def _work(
        self,
        request: Request,
        on_start: Callable[[], None],
        on_text: Callable[[str], None] | None,
        account: RequestTimer,
    ) -> Transcript:
        async with self._at_hand(request) as here:
            try:
                async with self._desks:
                    return await self._transcribed(here, on_start, on_text, account, longest=LONG)
            except TooLongError:
                if self.settings.max_audio_seconds <= LONG:
                    raise
            async with self._long:
                return await self._transcribed(here, on_start, on_text, account, longest=math.inf)

    @asynccontextmanager
    async def _at_hand(self, request: Request) -> AsyncIterator[Request]:
        """The request, its audio fetched if it is at a URL."""
        url = request.source
        if not isinstance(url, str):
            yield request
            return
        with self.spool.open(most_in_memory(self.held), FETCHED) as body:
            fetch = functools.partial(audio.fetched, url, body, limits=limits(self.settings))
            await asyncio.get_running_loop().run_in_executor(self._fetchers, fetch)
            yield replace(request, source=Upload(body, redact_url(url)))

    async def _transcribed(
        self,
        request: Request,
        on_start: Callable[[], None],
        on_text: Callable[[str], None] | None,
        account: RequestTimer,
        *,
        longest: float,
    ) -> Transcript:
        """Raises TooLongError for what is longer than `longest` seconds, or than the settings allow."""
        most = min(longest, self.settings.max_audio_seconds)
        patient = replace(self.transcriber, settings=self.settings.model_copy(update={"max_audio_seconds": most}))
        account.taken()
        prepare = functools.partial(contextvars.copy_context().run, patient.prepare, request)  # its log has its id
        loop = asyncio.get_running_loop()
        try:
            prepared = await loop.run_in_executor(self._readers, prepare)
        except asyncio.CancelledError:
            if isinstance(request.source, Upload):
                loop.run_in_executor(None, request.source.cancellation.cancel)
            raise
        on_start()
        deltas = on_text and Deltas(
            raw=self.transcriber.wording.text,
            language=prepared.language,
            most_tokens=request.max_tokens,
            tell=on_text,
        )
        return await self._decode(prepared, deltas or None, account)

    async def _decode(self, prepared: Prepared, deltas: Deltas | None, account: RequestTimer) -> Transcript:
        with submitted(self.transcriber, prepared.spoken) as decodings:
            for decoding in decodings[:1]:
                decoding.add_listener(account.begun)
            events = iter([events_of(decoding, tokens=deltas is not None) for decoding in decodings])
            done: list[transcript.Segment] = []
            for cut, utterance in zip(prepared.cuts, prepared.utterances, strict=True):
                decoded = await await_end(next(events), deltas, prepared.audio.source) if utterance else None
                done.append(await self._heard(prepared, cut, decoded))
                account.decoded(cut.end - cut.start, len(done[-1].tokens))
                if deltas:
                    deltas.end(done[-1])
            heard = prepared.joined(done)
            account.done(heard)
            if self.settings.log_content:
                told = {"source": heard.source, "context": prepared.request.context, "text": heard.text}
                log.info("transcribed", extra=told)
            return heard

    async def _heard(self, prepared: Prepared, cut: AudioSegment, decoded: Decoded | None) -> transcript.Segment:
        """What was decoded of a segment; where speech has to be looked for in it, that is in a thread."""
        if not (prepared.request.timed and decoded):
            return prepared.heard(cut, decoded)
        return await self.write(lambda: prepared.heard(cut, decoded))


async def tidy(*, last: bool = False) -> None:
    """To be called after each body that was read, and after each session in which there was sound, which may have been
    the `last` that was open."""
    if next(_ended) % EVERY == 0 or last:
        await run_in_threadpool(trim_heap)
