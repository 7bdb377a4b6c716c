"""Transcribe many requests at once: bounded queues, no thread per waiting request, cancelled when nobody waits."""

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
from runtime.server.engine_events import TextDeltas, await_result, event_queue, submitted
from runtime.server.errors import DecodingError, FullError, OverdueError, SessionsFullError, StoppingError
from runtime.server.realtime.pacing import CatchUpLimiter
from runtime.server.request_context import RequestTimer
from runtime.server.spool import Spool, Upload, memory_limit
from runtime.transcriber import Prepared, Request, Transcriber, limits
from runtime.transcript import Transcript
from runtime.urls import redact_url

T = TypeVar("T")

_Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# Requests whose audio is in memory, per utterance of a batch: enough that the engine transformers finds batch mates of
# similar length. The others wait with their audio as it was sent, most of it on disk.
PREFETCH_FACTOR = 4
# Audio longer than this many seconds counts as long. Long files have fewer slots, of their own: so decoded audio, 64 kB
# a second, does not fill the memory, and short files do not wait for long ones.
LONG_AUDIO_SECONDS = 300.0
# Threads that format transcripts, and files decoded at once beside those that a remote engine has.
DECODE_THREADS = min(4, os.cpu_count() or 1)
BODY_THREADS = 16  # threads in which large bodies wait for a helper process
PARSER_THREADS = 2  # threads that parse small bodies, and messages of sessions, which must not wait for files
SERVER_STOPPING = StoppingError("the server", "ends before this request is done")
FETCH_OWNER = "urls"  # whom the disk space of fetched files counts for, whoever asked for them
FETCH_THREADS = 16  # threads that fetch audio from URLs; a slow host blocks only these
# Bodies and sessions between two trims. glibc keeps 100 MiB and more of the memory used to parse 500 waiting uploads,
# and 3 to 6 MiB of each session with speech; to give it back takes a few milliseconds.
TRIM_INTERVAL = 64

log = logging.getLogger(__name__)

_finished_bodies = itertools.count(1)


class DaemonThreadPool(Executor):
    """A fixed number of threads which, unlike those of ThreadPoolExecutor, never keep the process from exiting: one may
    be waiting for another host."""

    def __init__(self, count: int, *, name: str) -> None:
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Call `fn` in one of the threads."""
        future: Future[T] = Future()
        self._work.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - Executor's
        """End the threads after what was submitted before."""
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


def short_slots(engine: Engine) -> int:
    """How many short files may have their audio in memory. For an engine whose model is elsewhere and that decodes
    whatever arrives: as many as it decodes at once, and those being read."""
    together = engine.status().most_together
    return PREFETCH_FACTOR * together if engine.loaded else together + DECODE_THREADS


def long_slots(engine: Engine, settings: Settings) -> int:
    """How many long files may have their audio in memory: enough to fill the engine with their segments, and one
    more."""
    batch = engine.status().most_together * settings.segment_seconds
    if engine.loaded:
        batch = min(batch, settings.batch_audio_seconds)
    return 1 + math.ceil(batch / LONG_AUDIO_SECONDS)


class Service:
    """Transcribes for many clients, on one event loop."""

    def __init__(self, transcriber: Transcriber, *, on_failure: Callable[[KitError], None] = lambda _: None) -> None:
        """`on_failure` is called on the event loop with an error of the engine's."""
        self.transcriber = transcriber
        self._on_failure = on_failure
        room, largest = self.settings.spool_most_mib, max(self.settings.upload_max_mib, self.settings.url_max_mib)
        self.spool = Spool(room << 20, max(room // 2, largest) << 20)
        short, long = short_slots(transcriber.engine), long_slots(transcriber.engine, self.settings)
        self._short_slots, self._long_slots = asyncio.Semaphore(short), asyncio.Semaphore(long)
        # Its threads wait for helper processes, none of them for another request.
        self._decode_pool = DaemonThreadPool(short + long, name="audio")
        self._body_pool = DaemonThreadPool(BODY_THREADS, name="body")
        self._parser_pool = DaemonThreadPool(PARSER_THREADS, name="message")
        self._writer_pool = DaemonThreadPool(DECODE_THREADS, name="transcript")
        self._fetch_pool = DaemonThreadPool(FETCH_THREADS, name="url")
        self.catch_up = CatchUpLimiter()
        self._running: set[asyncio.Task[Any]] = set()
        self._sessions: set[asyncio.Task[Any]] = set()
        self._stop_reason: KitError | None = None

    @property
    def settings(self) -> Settings:
        return self.transcriber.settings

    @property
    def pending(self) -> int:
        """Requests that are queued or worked on, sessions not included."""
        return len(self._running)

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def check_capacity(self) -> None:
        """Raise FullError if ASR_MAX_WAITING requests are pending."""
        limit = self.settings.max_waiting
        if self.pending >= limit:
            message = f"holds {self.pending} requests, the limit is {limit} (ASR_MAX_WAITING)"
            raise FullError("the queue", message, "try again later")

    def check_session_capacity(self) -> None:
        """Raise SessionsFullError if ASR_MAX_SESSIONS are open."""
        limit = self.settings.max_sessions
        if self.sessions >= limit:
            message = f"has {self.sessions} realtime sessions open, the limit is {limit} (ASR_MAX_SESSIONS)"
            raise SessionsFullError("the server", message, "try again later")

    async def transcribe(
        self,
        request: Request,
        *,
        on_start: Callable[[], None] = lambda: None,
        on_text: Callable[[str], None] | None = None,
    ) -> Transcript:
        """Transcribe one file. Calls `on_start` when its audio could be read, `on_text` with each new piece of text.

        Cancellation takes its segments out of the engine. Raises KitError: FullError at once, OverdueError after
        ASR_REQUEST_TIMEOUT_SECONDS, the reason of `cancel_all`, DecodingError or EngineError, and others for audio,
        language or context that cannot be used.
        """
        self.check_capacity()
        self._check_running()
        work = asyncio.ensure_future(self._run(request, on_start, on_text, RequestTimer()))
        self._running.add(work)
        seconds = self.settings.request_timeout_seconds
        try:
            return await asyncio.wait_for(work, seconds)
        except asyncio.TimeoutError:
            raise OverdueError("the request", f"took longer than the limit of {seconds:g} s") from None
        except asyncio.CancelledError:
            self._check_running()
            raise
        except (DecodingError, EngineError) as error:
            self._on_failure(error)
            raise
        finally:
            self._running.discard(work)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Count the current task as a session until the block ends.

        Raises SessionsFullError at once, and the reason of `cancel_all`, which cancels the task.
        """
        self.check_session_capacity()
        self._check_running()
        task = asyncio.current_task()
        assert task, "a session is led by a task"
        self._sessions.add(task)
        try:
            yield
        except asyncio.CancelledError:
            self._check_running()
            raise
        finally:
            self._sessions.discard(task)

    async def decode(self, utterance: Utterance, *, name: str) -> Decoded:
        """Decode one utterance of a session; errors call it `name`.

        Cancellation takes it out of the engine. Raises OverdueError, StoppingError, DecodingError and EngineError.
        """
        seconds = self.settings.request_timeout_seconds
        try:
            with submitted(self.transcriber, [utterance]) as (decoding,):
                return await asyncio.wait_for(await_result(event_queue(decoding, tokens=False), None, name), seconds)
        except asyncio.TimeoutError:
            raise OverdueError(name, f"took longer than the limit of {seconds:g} s") from None
        except (DecodingError, EngineError) as error:
            self._on_failure(error)
            # `wait_for` holds on to what it raises, which holds on to `wait_for`, and to the samples here.
            raise copy.copy(error.with_traceback(None)) from error.__cause__

    async def in_body_thread(self, function: Callable[[], T], cancellation: Cancellation) -> T:
        """Call `function`, which reads a large body, in a thread that may wait for a helper process.

        Cancellation ends the helper through `cancellation`, and waits until the thread is done with its files.
        """
        reading = self._body_pool.submit(function)
        try:
            return await asyncio.wrap_future(reading)
        except asyncio.CancelledError:
            if not reading.cancel():
                await asyncio.get_running_loop().run_in_executor(None, cancellation.cancel)
                await asyncio.gather(asyncio.wrap_future(reading), return_exceptions=True)
            raise

    async def in_writer_thread(self, function: Callable[[], T]) -> T:
        """Call `function`, which formats a transcript, in a thread: the captions of hours take a second."""
        return await asyncio.get_running_loop().run_in_executor(self._writer_pool, function)

    async def in_parser_thread(self, function: Callable[[], T]) -> T:
        """Call `function`, which parses a small body or a session's message, in a thread that never waits for files."""
        return await asyncio.get_running_loop().run_in_executor(self._parser_pool, function)

    def cancel_all(self, reason: KitError = SERVER_STOPPING) -> None:
        """Cancel all requests and sessions, and refuse new ones, with that reason. Called on the event loop."""
        self._stop_reason = reason
        for work in self._running | self._sessions:
            work.cancel()

    def close(self) -> None:
        for workers in (self._decode_pool, self._body_pool, self._parser_pool, self._writer_pool, self._fetch_pool):
            workers.shutdown()

    def _check_running(self) -> None:
        if self._stop_reason:
            # Each request gets its own copy: a raised exception holds on to the frames that it passed.
            raise copy.copy(self._stop_reason) from None

    async def _run(
        self,
        request: Request,
        on_start: Callable[[], None],
        on_text: Callable[[str], None] | None,
        timer: RequestTimer,
    ) -> Transcript:
        transcribe = functools.partial(self._prepare_and_decode, on_start=on_start, on_text=on_text, timer=timer)
        async with self._with_local_audio(request) as local_request:
            try:
                async with self._short_slots:
                    return await transcribe(local_request, longest=LONG_AUDIO_SECONDS)
            except TooLongError:
                if self.settings.max_audio_seconds <= LONG_AUDIO_SECONDS:
                    raise
            async with self._long_slots:
                return await transcribe(local_request, longest=math.inf)

    @asynccontextmanager
    async def _with_local_audio(self, request: Request) -> AsyncIterator[Request]:
        """Yield the request, its audio fetched if it is a URL."""
        url = request.source
        if not isinstance(url, str):
            yield request
            return
        with self.spool.open(memory_limit(self.pending), FETCH_OWNER) as body:
            fetch = functools.partial(audio.fetched, url, body, limits=limits(self.settings))
            await asyncio.get_running_loop().run_in_executor(self._fetch_pool, fetch)
            yield replace(request, source=Upload(body, redact_url(url)))

    async def _prepare_and_decode(
        self,
        request: Request,
        *,
        on_start: Callable[[], None],
        on_text: Callable[[str], None] | None,
        timer: RequestTimer,
        longest: float,
    ) -> Transcript:
        """Transcribe. Raises TooLongError beyond `longest` seconds, or ASR_MAX_AUDIO_SECONDS."""
        limit = min(longest, self.settings.max_audio_seconds)
        limited = replace(self.transcriber, settings=self.settings.model_copy(update={"max_audio_seconds": limit}))
        timer.audio_read_started()
        prepare = functools.partial(contextvars.copy_context().run, limited.prepare, request)  # its log has its id
        loop = asyncio.get_running_loop()
        try:
            prepared = await loop.run_in_executor(self._decode_pool, prepare)
        except asyncio.CancelledError:
            if isinstance(request.source, Upload):
                loop.run_in_executor(None, request.source.cancellation.cancel)
            raise
        on_start()
        text_deltas = on_text and TextDeltas(
            raw=self.transcriber.tokenizer.text,
            language=prepared.language,
            max_tokens=request.max_tokens,
            on_text=on_text,
        )
        return await self._decode(prepared, text_deltas or None, timer)

    async def _decode(self, prepared: Prepared, text_deltas: TextDeltas | None, timer: RequestTimer) -> Transcript:
        with submitted(self.transcriber, prepared.spoken) as decodings:
            for decoding in decodings[:1]:
                decoding.add_listener(timer.on_event)
            events = iter([event_queue(decoding, tokens=text_deltas is not None) for decoding in decodings])
            done: list[transcript.Segment] = []
            for cut, utterance in zip(prepared.cuts, prepared.utterances, strict=True):
                decoded = await await_result(next(events), text_deltas, prepared.audio.source) if utterance else None
                done.append(await self._read_segment(prepared, cut, decoded))
                timer.segment_decoded(cut.end - cut.start, len(done[-1].tokens))
                if text_deltas:
                    text_deltas.finish_segment(done[-1])
            result = prepared.to_transcript(done)
            timer.transcript_done(result)
            if self.settings.log_content:
                extra = {"source": result.source, "context": prepared.request.context, "text": result.text}
                log.info("transcribed", extra=extra)
            return result

    async def _read_segment(self, prepared: Prepared, cut: AudioSegment, decoded: Decoded | None) -> transcript.Segment:
        """Turn a decoded segment into text; where speech has to be located in it, in a thread."""
        if not (prepared.request.timed and decoded):
            return prepared.to_segment(cut, decoded)
        return await self.in_writer_thread(lambda: prepared.to_segment(cut, decoded))


async def trim_heap_sometimes(*, last: bool = False) -> None:
    """Give freed memory back to the system now and then. Called after each body, and after each session with audio;
    `last`: no other session is open."""
    if next(_finished_bodies) % TRIM_INTERVAL == 0 or last:
        await run_in_threadpool(trim_heap)
