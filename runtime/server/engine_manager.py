"""The life of the engine within a server: load, warm up, serve, detect its failure, restart it, drain, and the signals
that end it."""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from time import monotonic
from typing import Any

from env.errors import FaultError, KitError
from env.settings import Settings
from runtime.demo import bundled_clips
from runtime.engines import EngineError, Observer
from runtime.model.load import Loaded
from runtime.ops.deploy.override import stop_seconds
from runtime.ops.process.state import DrainSummary
from runtime.ops.process.supervisor import ENGINE_LOST_CODE
from runtime.progress import stage_kind
from runtime.restart_policy import Crashes, Policy
from runtime.server import systemd
from runtime.server.errors import DecodingError
from runtime.server.http import HttpServer
from runtime.server.logs import capture_library_loggers
from runtime.server.service import SERVER_STOPPING, Service
from runtime.server.state import ServerState
from runtime.transcriber import Request, Transcriber, open_transcriber

log = logging.getLogger(__name__)

HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

NPU_ADVICE = "npu-smi info tells how the device is"
CANCEL_TIMEOUT = 1.0  # seconds for cancelled requests to be answered


class LoadingProgress(Observer):
    """Reports the loading of `model` to the server's state and the log, until `end`. `cause` says why an earlier engine
    was lost; empty for the first one. The log gets each step once, however often its percentage changes."""

    def __init__(self, state: ServerState, model: str, cause: str) -> None:
        self._state, self._is_done = state, False
        self._action = f"loading {model}{' again' if cause else ''}"
        self._cause = cause
        self._logged: set[str] = set()

    def begin(self) -> None:
        self._state.announce(self._action + (f": {self._cause}" if self._cause else ""))

    def starting(self, stage: str) -> None:
        """A step of loading has begun, or has advanced."""
        if self._is_done:
            return
        self._state.status_text = f"{self._action}: {stage}" + (f"; {self._cause}" if self._cause else "")
        if (kind := stage_kind(stage)) not in self._logged:
            self._logged.add(kind)
            log.info("%s: %s", self._action, stage)

    def end(self) -> None:
        """Stop reporting: a vLLM server that is restarted while others serve is none of this."""
        self._is_done = True


def warm_up(transcriber: Transcriber) -> None:
    """Transcribe a clip the way requests are transcribed. Raises what the engine raises."""
    transcriber.transcribe(bundled_clips()[0].path)


class FailureDetector(Observer):
    """Calls `on_failure` once, with the reason, when the engine has failed: it says so, or it can no longer transcribe
    the clip that it was warmed up with. The clip is tried after each failed request, as a lost device fails requests
    one by one, as if their audio were bad."""

    def __init__(self, on_failure: Callable[[str], None]) -> None:
        self._on_failure = on_failure
        self._probing: asyncio.Task[None] | None = None
        self._is_done = False

    def failed(self, reason: str) -> None:
        """The engine reports that it can decode no more."""
        if not self._is_done:
            self._is_done = True
            self._on_failure(reason)

    def check_after(self, service: Service, error: KitError) -> None:
        """Check the engine after a failed request. Called on the event loop."""
        if isinstance(error, EngineError):
            self.failed(service.transcriber.engine.status().failed or error.reason)
        elif not (self._is_done or self._probing):
            # In a context of its own, as it is no part of the request that failed.
            self._probing = Context().run(asyncio.ensure_future, self._probe(service))

    def end(self) -> None:
        """Report nothing from now on."""
        self._is_done = True

    async def _probe(self, service: Service) -> None:
        try:
            await service.transcribe(Request(bundled_clips()[0].path))
        except DecodingError as error:
            self.failed(f"a clip that it has transcribed before {error.reason}")
        except KitError:  # full, overdue, over: none of them tells of the engine
            pass
        finally:
            self._probing = None


class ServerStoppedError(BaseException):
    """The server is to stop, and nothing is left to wait for."""


class SignalHandler:
    """SIGTERM drains the server; another one changes nothing. SIGINT, also after SIGTERM, gives up the requests that
    were accepted. SIGHUP calls `on_hangup`."""

    def __init__(self, state: ServerState, *, on_hangup: Callable[[], None] = lambda: None) -> None:
        self._state, self._on_hangup = state, on_hangup
        self._may_raise = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals until the block ends."""
        before = {number: signal.signal(number, self._handle) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise ServerStoppedError in the block when a signal stops the server."""
        self._may_raise = True
        try:
            if self._state.stopping:
                raise ServerStoppedError
            yield
        finally:
            self._may_raise = False

    def _handle(self, number: int, _: Any) -> None:
        """Prints nothing, as it may interrupt a print."""
        if number == signal.SIGHUP:
            self._on_hangup()
            return
        self._state.stop(signal.Signals(number).name, at_once=number == signal.SIGINT)
        if self._may_raise:
            self._may_raise = False
            raise ServerStoppedError


class EngineLostError(FaultError):
    """The engine failed more often than the restart policy allows, or its device failed while it was loaded. A new
    process may succeed, as the device's context ends with the old one."""

    exit_code = ENGINE_LOST_CODE  # 70 in sysexits.h; supervisors and containers start again after it


@dataclass(frozen=True)
class EngineManager:
    """Runs one engine after the other behind `http_server`. Calls `on_ready` with the port each time that an engine is
    ready; `observers` receive the events of all engines."""

    settings: Settings
    state: ServerState
    http_server: HttpServer
    signals: SignalHandler
    on_ready: Callable[[int], None]
    observers: Sequence[Observer]

    def run(self, policy: Policy) -> DrainSummary:
        """Serve until the server stops, restarting the engine when it fails.

        Raises what loading the first engine raises, unless its device is at fault; ServerStoppedError if the server
        stops while no engine is loaded; EngineLostError if the first engine cannot be loaded because of its device, or
        engines fail more often than `policy` allows. Remote vLLM servers may stay away for as long as they like.
        """
        state, crashes, cause = self.state, Crashes(policy), ""
        while True:
            try:
                return self._serve_with_engine(cause)
            except Exception as error:  # torch, CANN and files raise what they like
                if not (state.was_ready or may_recover(error)):
                    raise
                foreseen = isinstance(error, KitError)
                reason = str(error) if foreseen else f"{type(error).__name__}: {error}"
                # Other errors are logged elsewhere.
                if not foreseen or (state.was_ready and not isinstance(error, EngineError)):
                    again = " again" if state.was_ready else ""
                    log.error("the engine cannot be loaded%s: %s", again, reason, exc_info=None if foreseen else error)
                if not state.was_ready:
                    subject, reason, advice = error.args if foreseen else ("the engine", reason, "")
                    raise EngineLostError(subject, reason, advice or NPU_ADVICE) from error
                state.engine_failed(reason)
            pause = crashes.add(monotonic())
            if pause is None and self._has_remote_servers:  # a new process would do nothing for servers elsewhere
                pause = policy.last_pause
            if pause is None:
                reason = f"has failed, and had been loaded again {policy}: {state.failure}"
                raise EngineLostError("the engine", reason, NPU_ADVICE)
            cause = f"the engine has failed: {state.failure}"
            state.announce(f"restarting in {pause:g} s: {cause}", level=logging.ERROR)
            if state.sleep(pause):
                raise ServerStoppedError
            state.restart_engine()

    @property
    def _has_remote_servers(self) -> bool:
        """Whether the model is served elsewhere (ASR_VLLM_URL)."""
        return self.settings.engine_name == "vllm" and bool(self.settings.vllm_url)

    def _serve_with_engine(self, cause: str) -> DrainSummary:
        """Load an engine and serve until the server stops. Raises EngineError when the engine fails, and what loading
        it raises. `cause` says why the one before was lost."""
        detector, progress = (
            FailureDetector(self.state.engine_failed),
            LoadingProgress(self.state, self.settings.model, cause),
        )
        with contextlib.ExitStack() as stack:
            with self.signals.interruptible():
                progress.begin()
                observers = (detector, progress, *self.observers)
                transcriber = stack.enter_context(open_engine(self.settings, observers=observers))
                capture_library_loggers()  # loading has imported transformers
                progress.end()
                self.state.announce(f"warming up again: {cause}" if cause else "warming up")
                warm_up(transcriber)
            stack.enter_context(frozen_gc())
            service = Service(transcriber, on_failure=lambda error: detector.check_after(service, error))
            try:
                return self._serve(service)
            finally:
                detector.end()
                service.close()

    def _serve(self, service: Service) -> DrainSummary:
        state, device = self.state, service.transcriber.device
        state.announce(f"ready on {device.name} ({device.description()}), port {self.http_server.port}")
        state.ready(service)
        systemd.notify(READY=1)
        self.on_ready(self.http_server.port)
        if state.wait_end():
            log.info("%s", state.status_text)
            systemd.notify_stopping(stop_seconds(self.settings))
            return drain(state, service, self.http_server, seconds=self.settings.drain_seconds)
        lost = _engine_failure(state)
        self.http_server.call(functools.partial(service.cancel_all, lost))
        state.wait_idle(CANCEL_TIMEOUT)
        raise lost


def may_recover(error: Exception) -> bool:
    """Whether an error may go away by itself. torch and CANN raise RuntimeError for whatever happens on a device;
    NotImplementedError, an operator that the device lacks, does not go away. For a failed clip, the cause counts."""
    kinds = (FaultError, RuntimeError, MemoryError)
    errors = [one for one in (error, error.__cause__) if isinstance(one, kinds)]
    return bool(errors) and not any(isinstance(one, NotImplementedError) for one in errors)


@contextlib.contextmanager
def open_engine(settings: Settings, *, observers: Sequence[Observer]) -> Iterator[Transcriber]:
    """`open_transcriber`, and free the device's memory after the block."""
    loaded: Loaded | None = None
    try:
        with open_transcriber(settings, observers=observers) as transcriber:
            loaded = transcriber.engine.loaded
            yield transcriber
    finally:
        if loaded:
            loaded.model.to("meta")  # frees the weights, whoever still holds the model
            gc.collect()
            with contextlib.suppress(RuntimeError):  # of a device that is lost; the next load says so
                loaded.device.empty_cache()


@contextlib.contextmanager
def frozen_gc() -> Iterator[None]:
    """Have the garbage collector ignore, within the block, what exists already: torch and the model are a million
    objects, and a full collection would stop all answers for half a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def drain(state: ServerState, service: Service, http_server: HttpServer, *, seconds: float) -> DrainSummary:
    """Wait up to `seconds` for accepted requests. Those that remain are cancelled with the reason: the server stops, or
    its engine has failed."""
    accepted = state.accepted
    if state.wait_drained(seconds):
        return DrainSummary(accepted)
    unanswered = state.accepted
    reason = _engine_failure(state) if state.failure else SERVER_STOPPING
    http_server.call(functools.partial(service.cancel_all, reason))
    state.wait_idle(CANCEL_TIMEOUT)
    return DrainSummary(accepted - unanswered, unanswered)


def _engine_failure(state: ServerState) -> EngineError:
    return EngineError("the engine", f"has failed: {state.failure}", "try again later")
