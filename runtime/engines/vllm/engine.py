"""The vLLM engine: utterances wait here, by turns of those who handed them over, until a server has room; vLLM itself
decides what it decodes together.

A thread of the engine's own runs an asyncio loop with all exchanges. What a server fails is decoded again, on another
where there is one, and callers see only tokens that they have not seen.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import httpx

from env.errors import KitError
from env.groups.model import EngineName
from env.settings import Settings
from runtime.engines import Decoded, EngineError, EngineStatus, Observer, Utterance
from runtime.engines.batching import BatchLimits, Queue, QueueItem
from runtime.engines.stream import Stream
from runtime.engines.vllm.client import ServerFault, ask, connect, cure, needs
from runtime.engines.vllm.replica import Monitor, Replica, cancel, describe_failures, end, least_loaded, none_ready
from runtime.model.device import Device
from runtime.model.prompt import Tokenizer

TRIES = 3  # of an utterance, where servers fail: one that brings them down shall not bring down many
ENCODERS = 4  # threads in which audio is written into requests

log = logging.getLogger("runtime.engines.vllm")


class TokenReader:
    """Reads the tokens of a stream, as they come, and tells observers how long each took."""

    def __init__(self, stream: Stream, tokenizer: Tokenizer, observers: Sequence[Observer], since: float) -> None:
        self.tokens: list[int] = []
        self._stream, self._ends, self._observers, self._since = stream, tokenizer.end_tokens, observers, since
        self._told = [observer.prefill_done for observer in observers]

    def read(self, tokens: Sequence[int]) -> None:
        """Several that come together have taken the same time each. End tokens are none of the answer."""
        now = time.monotonic()
        each = (now - self._since) / len(tokens)
        self._since = now
        for token in tokens:
            for tell in self._told:
                tell(each)
            self._told = [observer.decode_step for observer in self._observers]
            if token not in self._ends:
                self.tokens.append(token)
                self._stream.push_token(len(self.tokens), token)


@dataclass(eq=False)
class _StreamJob:
    """A stream and the servers that have failed it."""

    stream: Stream
    failed: list[Replica] = field(default_factory=list)


class VllmEngine:
    """Has its servers decode, each up to `settings.vllm_max_seqs` utterances at a time."""

    name: EngineName = "vllm"
    loaded = None

    def __init__(
        self,
        settings: Settings,
        tokenizer: Tokenizer,
        servers: Sequence[Replica],
        device: Device,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.tokenizer, self.device = tokenizer, device
        self._settings, self._servers, self._observers = settings, servers, observers
        self._queue: Queue[Stream] = Queue(BatchLimits(together=1))
        self._again: deque[_StreamJob] = deque()  # those that a server has failed
        self._failed = ""
        self._stopping = self._at_once = False
        self._loop: asyncio.AbstractEventLoop | None = None  # while it runs
        self._lock = threading.Lock()  # for the six above; streams are told things without it
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        # The rest is the loop's.
        self._changed = asyncio.Event()  # something that counts: an utterance, a server, an end
        self._stages: dict[Replica, str] = {}  # of each server's start, as observers were told

    def start(self) -> None:
        """Wait until all servers that the kit starts have started or failed, all others were asked, and one is well.
        Raises KitError where none can be used, or none is there after ASR_VLLM_START_SECONDS."""
        self._thread.start()
        self._started.result()

    def submit(self, utterances: Sequence[Utterance]) -> Sequence[Stream]:
        """Hand over utterances, which wait until a server has room."""
        streams = [Stream(utterance, on_cancel=self._withdraw) for utterance in utterances]
        with self._lock:
            if self._failed:
                raise _failure(self._failed)
            if self._stopping:
                raise RuntimeError("the engine has stopped")
            self._queue.add([QueueItem(stream, stream.utterance.seconds, stream.since) for stream in streams])
        self._call(self._changed.set)
        return streams

    def status(self) -> EngineStatus:
        """What waits and what is being decoded, and how the servers are."""
        with self._lock:
            waiting = len(self._queue) + sum(not job.stream.ended for job in self._again)
            servers = tuple(server.told() for server in self._servers)
            most = self._settings.vllm_max_seqs * len(servers)
            return EngineStatus(waiting, sum(server.decoding for server in servers), most, self._failed, servers)

    def stop(self, *, drain: bool = True) -> None:
        """End the engine, and the servers that it has started: after all that was accepted has been decoded or, without
        `drain`, at once."""
        with self._lock:
            self._stopping, self._at_once = True, not drain
            given_up = [] if drain else self._accepted()
        for stream in given_up:
            stream.cancel()
        self._call(self._changed.set)
        if self._thread.ident is not None:
            self._thread.join()

    def _accepted(self) -> list[Stream]:
        """All that may have no end yet; with the lock held."""
        underway = [stream for server in self._servers for stream in tuple(server.underway)]
        return [*self._queue, *(job.stream for job in self._again), *underway]

    def _withdraw(self, stream: Stream) -> None:
        """A caller gives up a stream, which is told so here: what the loop finds without an end is decoded again."""
        stream.push(CancelledError())
        with self._lock:
            self._queue.remove(stream)
        self._call(self._hang_up, stream)

    def _hang_up(self, stream: Stream) -> None:
        cancel(task for server in self._servers if (task := server.underway.get(stream)))
        self._changed.set()

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the loop call something, if it runs."""
        with self._lock:
            if self._loop:
                self._loop.call_soon_threadsafe(function, *arguments)

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            if isinstance(error, KitError) and not self._started.done():
                self._started.set_exception(error)
                return
            log.critical("the engine has failed", exc_info=error)
            self._fail(f"{type(error).__name__}: {error}")
            if not self._started.done():
                self._started.set_exception(error)

    async def _run(self) -> None:
        """From start to stop. Raises KitError where none of the servers starts."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(ENCODERS + 2 * len(self._servers), "vllm"))
        with self._lock:
            self._loop = loop
        try:
            async with connect(self._settings.vllm_key) as client:
                await self._use(client)
        finally:
            with self._lock:
                self._loop = None

    async def _use(self, client: httpx.AsyncClient) -> None:
        wanted = needs(self._settings, self.tokenizer)
        tenders = [
            Monitor(server, client, wanted, self._settings, self._changed.set, self._server_lost, self._tell_stage)
            for server in self._servers
        ]
        tending = [asyncio.ensure_future(tender.run()) for tender in tenders]
        for task in tending:
            task.add_done_callback(lambda _: self._changed.set())
        try:
            own = any(server.order for server in self._servers)  # each has its own limit, and says why
            await self._until(self._has_started, tending, None if own else self._settings.vllm_start_seconds)
            self._conclude_start()
            await self._until(lambda: self._move_on(client), tending)
        finally:
            await end([*tending, *(task for server in self._servers for task in server.underway.values())])
            await asyncio.gather(*(tender.end_child() for tender in tenders))

    async def _until(
        self, done: Callable[[], bool], tending: Sequence["asyncio.Task[None]"], seconds: float | None = None
    ) -> None:
        """Ask `done` after each change; return when it says so, or after so many seconds. Raises what a tender did, and
        should not."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changes(done, tending), seconds)

    async def _changes(self, done: Callable[[], bool], tending: Sequence["asyncio.Task[None]"]) -> None:
        while not done():
            await self._changed.wait()
            self._changed.clear()
            for task in tending:
                if task.done():
                    task.result()

    def _has_started(self) -> bool:
        """Whether there is nothing to wait for: all were looked at, and one is well, or none can get well."""
        states = {server.state for server in self._servers}
        return self._stopping or (
            all(server.looked_at for server in self._servers) and ("ready" in states or states == {"lost"})
        )

    def _conclude_start(self) -> None:
        """Say what is not there. Raises KitError where nothing is."""
        absent = [server for server in self._servers if server.state != "ready"]
        if len(absent) < len(self._servers) or self._stopping:
            for server in [] if self._stopping else absent:
                log.warning("%s is not there: %s", server.name, server.trouble)
            self._started.set_result(None)
            return
        raise none_ready(absent, seconds=self._settings.vllm_start_seconds)

    def _move_on(self, client: httpx.AsyncClient) -> bool:
        """Hand out what can be; fail where nobody is left to take it. Returns whether the engine shall end and all that
        was accepted has its end."""
        left = any(server.state in ("ready", "doubted") or server.underway for server in self._servers)
        if not (left or self._failed):
            self._fail(f"no server is left: {describe_failures(self._servers)}")
        most = self._settings.vllm_max_seqs
        while server := least_loaded(self._servers, most=most, without=self._again[0].failed if self._again else ()):
            job = self._next()
            if job is None:
                break
            task = server.underway[job.stream] = asyncio.ensure_future(self._decode(client, job, server))
            task.add_done_callback(partial(self._end_of, job, server))
        with self._lock:
            waiting = len(self._queue) + len(self._again)
            decoding = any(server.underway for server in self._servers)
            return self._at_once or (self._stopping and not waiting and not decoding)

    def _next(self) -> _StreamJob | None:
        """What is decoded next: what has been begun before, then whose turn it is."""
        with self._lock:
            while self._again:
                job = self._again.popleft()
                if not job.stream.ended:
                    return job
            return next((_StreamJob(stream) for stream in self._queue.take()), None)

    async def _decode(self, client: httpx.AsyncClient, job: _StreamJob, server: Replica) -> None:
        stream, utterance = job.stream, job.stream.utterance
        begun = time.monotonic()
        for observer in self._observers:
            observer.batch_started([begun - stream.since], utterance.seconds)
        reader = TokenReader(stream, self.tokenizer, self._observers, begun)
        try:
            truncated = await ask(client, server.url, server.model, utterance, heard=reader.read)
            stream.push(Decoded(tuple(reader.tokens), self.tokenizer.text(reader.tokens), truncated))
        except ServerFault as fault:
            server.suspect(str(fault))
            self._again_or_never(job, server, str(fault))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to this utterance, not to the engine
            stream.push(error)

    def _end_of(self, job: _StreamJob, server: Replica, task: "asyncio.Task[None]") -> None:
        """Not in the task itself: one that is cancelled before its first step runs none of its lines."""
        if task.cancelled():  # the server is lost, or the caller wants it no more
            self._again_or_never(job, server, server.trouble)
        del server.underway[job.stream]
        self._changed.set()

    def _again_or_never(self, job: _StreamJob, server: Replica, trouble: str) -> None:
        """A server has failed an utterance."""
        if self._at_once:
            job.stream.push(CancelledError())
        job.failed.append(server)
        if len(job.failed) < TRIES:
            with self._lock:
                self._again.append(job)
            return
        reason = f"could not be decoded, {TRIES} times; the last time {server.name} {trouble}"
        advice = cure(trouble) or "its log may say more"
        job.stream.push(KitError(f"a segment of {job.stream.utterance.seconds:.1f} s", reason, advice))

    def _server_lost(self, server: Replica, finishing: bool) -> None:
        """What it was given is decoded again elsewhere: at once, or if it has not finished it in time."""
        seconds = self._settings.drain_seconds if finishing else 0
        asyncio.get_running_loop().call_later(seconds, cancel, tuple(server.underway.values()))

    def _tell_stage(self, server: Replica, stage: str) -> None:
        """In any thread. What starts while others decode is nobody's concern."""
        if not self._started.done() and self._stages.get(server) != stage:
            self._stages[server] = stage
            for observer in self._observers:
                observer.starting(f"{server.name}: {stage}")

    def _fail(self, reason: str) -> None:
        """Decode no more; all that was accepted fails."""
        with self._lock:
            self._failed = reason
            accepted = self._accepted()
            self._queue, self._again = Queue(self._queue.bounds), deque()
        for stream in accepted:
            stream.push(_failure(reason))
        for observer in self._observers:
            observer.failed(reason)


def _failure(reason: str) -> EngineError:
    return EngineError("engine", f"has failed: {reason}", "start it again; the log says where it failed")
