"""The vLLM engine: utterances wait here, round-robin over requests, until a server has room; vLLM itself batches them.

A thread of the engine runs an asyncio loop with all exchanges. An utterance that a server fails is decoded again, on
another server where there is one; its stream skips the tokens that it already has.
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
from pydantic import SecretStr

from env.errors import KitError
from env.groups.model import EngineName
from runtime.engines import Decoded, EngineError, EngineStatus, Observer, Utterance
from runtime.engines.batching import BatchLimits, Queue, QueueItem
from runtime.engines.stream import Stream
from runtime.engines.vllm.client import ServerFault, connect, remedy, requirements, stream_tokens
from runtime.engines.vllm.replica import (
    Monitor,
    Replica,
    cancel_and_wait,
    cancel_tasks,
    describe_failures,
    least_loaded,
    none_ready,
)
from runtime.model.device import Device
from runtime.model.prompt import Tokenizer

MAX_ATTEMPTS = 3  # of an utterance, where servers fail: one that brings them down must not bring down many
ENCODER_THREADS = 4  # threads in which audio is written into requests

log = logging.getLogger("runtime.engines.vllm")


class TokenReader:
    """Passes tokens to a stream as they come, and reports the seconds that each took to observers."""

    def __init__(self, stream: Stream, tokenizer: Tokenizer, observers: Sequence[Observer], since: float) -> None:
        self.tokens: list[int] = []
        self._stream, self._ends, self._observers, self._since = stream, tokenizer.end_tokens, observers, since
        self._reports = [observer.prefill_done for observer in observers]

    def read(self, tokens: Sequence[int]) -> None:
        """Take the next token ids. The time since the last call is shared evenly among them; end tokens are dropped."""
        now = time.monotonic()
        each = (now - self._since) / len(tokens)
        self._since = now
        for token in tokens:
            for report in self._reports:
                report(each)
            self._reports = [observer.decode_step for observer in self._observers]
            if token not in self._ends:
                self.tokens.append(token)
                self._stream.push_token(len(self.tokens), token)


@dataclass(eq=False)
class _StreamJob:
    """A stream, and the servers on which it has failed."""

    stream: Stream
    failed_on: list[Replica] = field(default_factory=list)


@dataclass(frozen=True)
class VllmConfig:
    """What the engine needs of the settings.

    `max_seqs` is the most utterances that a server decodes at a time, `segment_tokens` the context that the longest
    segment takes, `start_seconds` the time limit of a start, `drain_seconds` how long a server that takes no further
    connections may finish what it has begun, and `key` what servers ask of their clients.
    """

    max_seqs: int
    segment_tokens: int
    start_seconds: float
    drain_seconds: float
    key: SecretStr | None = None


class VllmEngine:
    """Distributes utterances over vLLM servers, up to `config.max_seqs` at a time to each."""

    name: EngineName = "vllm"
    loaded = None

    def __init__(
        self,
        config: VllmConfig,
        tokenizer: Tokenizer,
        servers: Sequence[Replica],
        device: Device,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.tokenizer, self.device = tokenizer, device
        self._config, self._servers, self._observers = config, servers, observers
        self._queue: Queue[Stream] = Queue(BatchLimits(together=1))
        self._retries: deque[_StreamJob] = deque()  # utterances that a server has failed
        self._failed = ""
        self._stopping = self._aborting = False
        self._loop: asyncio.AbstractEventLoop | None = None  # while it runs
        self._lock = threading.Lock()  # for the six above; not held while streams get events
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        # The rest is the loop's.
        self._changed = asyncio.Event()  # set when an utterance comes or ends, or a server changes
        self._stages: dict[Replica, str] = {}  # of each server's start, as last reported to observers

    def start(self) -> None:
        """Wait until every server has started, failed or been checked, and one is ready.

        Raises KitError where none can be used, or none is ready after ASR_VLLM_START_SECONDS.
        """
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
        """Numbers of utterances waiting and being decoded, and the state of each server."""
        with self._lock:
            waiting = len(self._queue) + sum(not job.stream.ended for job in self._retries)
            servers = tuple(server.status() for server in self._servers)
            most = self._config.max_seqs * len(servers)
            return EngineStatus(waiting, sum(server.decoding for server in servers), most, self._failed, servers)

    def stop(self, *, drain: bool = True) -> None:
        """Stop the engine and the servers that it has started: after all accepted utterances are decoded or, without
        `drain`, at once."""
        with self._lock:
            self._stopping, self._aborting = True, not drain
            cancelled = [] if drain else self._accepted()
        for stream in cancelled:
            stream.cancel()
        self._call(self._changed.set)
        if self._thread.ident is not None:
            self._thread.join()

    def _accepted(self) -> list[Stream]:
        """All streams that may have no end yet. The caller holds the lock."""
        in_flight = [stream for server in self._servers for stream in tuple(server.in_flight)]
        return [*self._queue, *(job.stream for job in self._retries), *in_flight]

    def _withdraw(self, stream: Stream) -> None:
        """Cancel a stream. Its end is pushed first, as the loop retries cancelled tasks whose stream has no end."""
        stream.push(CancelledError())
        with self._lock:
            self._queue.remove(stream)
        self._call(self._cancel_decoding, stream)

    def _cancel_decoding(self, stream: Stream) -> None:
        cancel_tasks(task for server in self._servers if (task := server.in_flight.get(stream)))
        self._changed.set()

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in the loop's thread, if the loop runs."""
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
        """Run the engine from start to stop. Raises KitError where no server becomes ready."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(ENCODER_THREADS + 2 * len(self._servers), "vllm"))
        with self._lock:
            self._loop = loop
        try:
            async with connect(self._config.key) as client:
                await self._run_servers(client)
        finally:
            with self._lock:
                self._loop = None

    async def _run_servers(self, client: httpx.AsyncClient) -> None:
        required = requirements(self.tokenizer, self._config.segment_tokens)
        monitors = [
            Monitor(
                server,
                client,
                required,
                self._config.start_seconds,
                self._changed.set,
                self._on_server_lost,
                self._report_stage,
            )
            for server in self._servers
        ]
        monitoring = [asyncio.ensure_future(monitor.run()) for monitor in monitors]
        for task in monitoring:
            task.add_done_callback(lambda _: self._changed.set())
        try:
            is_local = any(server.spec for server in self._servers)  # each has its own time limit, and gives the reason
            await self._until(self._has_started, monitoring, None if is_local else self._config.start_seconds)
            self._conclude_start()
            await self._until(lambda: self._dispatch(client), monitoring)
        finally:
            await cancel_and_wait(
                [*monitoring, *(task for server in self._servers for task in server.in_flight.values())]
            )
            await asyncio.gather(*(monitor.stop_process() for monitor in monitors))

    async def _until(
        self, done: Callable[[], bool], monitoring: Sequence["asyncio.Task[None]"], seconds: float | None = None
    ) -> None:
        """Wait until `done`, which is called after each change, returns True, or for so many seconds. Raises what a
        monitor raised."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changes(done, monitoring), seconds)

    async def _changes(self, done: Callable[[], bool], monitoring: Sequence["asyncio.Task[None]"]) -> None:
        while not done():
            await self._changed.wait()
            self._changed.clear()
            for task in monitoring:
                if task.done():
                    task.result()

    def _has_started(self) -> bool:
        """Whether the start is settled: all servers were checked, and one is ready or all are lost."""
        states = {server.state for server in self._servers}
        return self._stopping or (
            all(server.checked for server in self._servers) and ("ready" in states or states == {"lost"})
        )

    def _conclude_start(self) -> None:
        """Log which servers are not ready. Raises KitError where none is."""
        absent = [server for server in self._servers if server.state != "ready"]
        if len(absent) < len(self._servers) or self._stopping:
            for server in [] if self._stopping else absent:
                log.warning("%s is not there: %s", server.name, server.trouble)
            self._started.set_result(None)
            return
        raise none_ready(absent, seconds=self._config.start_seconds)

    def _dispatch(self, client: httpx.AsyncClient) -> bool:
        """Hand utterances to servers with room; fail the engine where no server is left. Returns whether the engine is
        stopping and has nothing more to decode."""
        usable = any(server.state in ("ready", "suspect") or server.in_flight for server in self._servers)
        if not (usable or self._failed):
            self._fail(f"no server is left: {describe_failures(self._servers)}")
        most = self._config.max_seqs
        while server := least_loaded(self._servers, most=most, without=self._avoided()):
            job = self._next_job()
            if job is None:
                break
            task = server.in_flight[job.stream] = asyncio.ensure_future(self._decode(client, job, server))
            task.add_done_callback(partial(self._on_task_done, job, server))
        with self._lock:
            waiting = len(self._queue) + len(self._retries)
            decoding = any(server.in_flight for server in self._servers)
            return self._aborting or (self._stopping and not waiting and not decoding)

    def _avoided(self) -> Sequence[Replica]:
        """The servers on which the next utterance has failed."""
        return self._retries[0].failed_on if self._retries else ()

    def _next_job(self) -> _StreamJob | None:
        """The next utterance to decode: retries first, then the queue."""
        with self._lock:
            while self._retries:
                job = self._retries.popleft()
                if not job.stream.ended:
                    return job
            return next((_StreamJob(stream) for stream in self._queue.take()), None)

    async def _decode(self, client: httpx.AsyncClient, job: _StreamJob, server: Replica) -> None:
        stream, utterance = job.stream, job.stream.utterance
        started = time.monotonic()
        for observer in self._observers:
            observer.batch_started([started - stream.since], utterance.seconds)
        reader = TokenReader(stream, self.tokenizer, self._observers, started)
        try:
            truncated = await stream_tokens(client, server.url, server.model, utterance, on_tokens=reader.read)
            stream.push(Decoded(tuple(reader.tokens), self.tokenizer.text(reader.tokens), truncated))
        except ServerFault as fault:
            server.report_failure(str(fault))
            self._retry_or_fail(job, server, str(fault))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to this utterance, not to the engine
            stream.push(error)

    def _on_task_done(self, job: _StreamJob, server: Replica, task: "asyncio.Task[None]") -> None:
        """Release the utterance. Not done in the task itself, as one cancelled before its first step runs no code."""
        if task.cancelled():  # the server is lost, or the caller wants it no more
            self._retry_or_fail(job, server, server.trouble)
        del server.in_flight[job.stream]
        self._changed.set()

    def _retry_or_fail(self, job: _StreamJob, server: Replica, trouble: str) -> None:
        """Queue an utterance again that a server has failed; after MAX_ATTEMPTS it fails."""
        if self._aborting:
            job.stream.push(CancelledError())
        job.failed_on.append(server)
        if len(job.failed_on) < MAX_ATTEMPTS:
            with self._lock:
                self._retries.append(job)
            return
        reason = f"could not be decoded, {MAX_ATTEMPTS} times; the last time {server.name} {trouble}"
        advice = remedy(trouble) or "its log may say more"
        job.stream.push(KitError(f"a segment of {job.stream.utterance.seconds:.1f} s", reason, advice))

    def _on_server_lost(self, server: Replica, finishing: bool) -> None:
        """Move the server's utterances to others: at once or, if it may finish them, after the drain time."""
        seconds = self._config.drain_seconds if finishing else 0
        asyncio.get_running_loop().call_later(seconds, cancel_tasks, tuple(server.in_flight.values()))

    def _report_stage(self, server: Replica, stage: str) -> None:
        """Report a stage of the engine's start, from any thread; restarts of a server later are not reported."""
        if not self._started.done() and self._stages.get(server) != stage:
            self._stages[server] = stage
            for observer in self._observers:
                observer.starting(f"{server.name}: {stage}")

    def _fail(self, reason: str) -> None:
        """Fail the engine and all accepted utterances."""
        with self._lock:
            self._failed = reason
            accepted = self._accepted()
            self._queue, self._retries = Queue(self._queue.bounds), deque()
        for stream in accepted:
            stream.push(_failure(reason))
        for observer in self._observers:
            observer.failed(reason)


def _failure(reason: str) -> EngineError:
    return EngineError("engine", f"has failed: {reason}", "start it again; the log says where it failed")
