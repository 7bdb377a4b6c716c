"""How far an engine is that is being loaded, for the health endpoint and the log."""

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
from runtime.ops.process.supervisor import LOST
from runtime.progress import stage_kind
from runtime.restart_policy import Crashes, Policy
from runtime.server import systemd
from runtime.server.errors import DecodingError
from runtime.server.http import HttpServer
from runtime.server.logs import adopt
from runtime.server.service import STOPPING, Service
from runtime.server.state import ServerState
from runtime.transcriber import Request, Transcriber, open_transcriber

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

ADVICE = "npu-smi info tells how the device is"
LAST_ANSWERS = 1.0  # seconds for requests that were given up to be told so


class Loading(Observer):
    """Tells `life` the stages of an engine for `model`, until `end`; `why` there was another before, empty if there was
    none. The log has each stage once, however often it tells of its share."""

    def __init__(self, life: ServerState, model: str, why: str) -> None:
        self._life, self._over = life, False
        self._what = f"loading {model}{' again' if why else ''}"
        self._why = why
        self._told: set[str] = set()

    def begin(self) -> None:
        """It is being loaded."""
        self._life.enter(self._what + (f": {self._why}" if self._why else ""))

    def starting(self, stage: str) -> None:
        """It is so far."""
        if self._over:
            return
        self._life.stage = f"{self._what}: {stage}" + (f"; {self._why}" if self._why else "")
        if (kind := stage_kind(stage)) not in self._told:
            self._told.add(kind)
            log.info("%s: %s", self._what, stage)

    def end(self) -> None:
        """It is loaded. What a server tells that is started again while the others go on is none of this."""
        self._over = True


def warm_up(transcriber: Transcriber) -> None:
    """Transcribe a clip through the path that requests take. Raises what the engine raises."""
    transcriber.transcribe(bundled_clips()[0].path)


class FailureDetector(Observer):
    """Tells once why an engine has failed, until `end`: the engine says so, or it fails the clip that it was warmed up
    with. That is tried after each failed request: a device that is lost fails them one by one, as if they were bad."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._trying: asyncio.Task[None] | None = None
        self._over = False

    def failed(self, reason: str) -> None:
        """The engine can decode no more."""
        if not self._over:
            self._over = True
            self._tell(reason)

    def trouble(self, service: Service, error: KitError) -> None:
        """The engine failed a request, or is said to have failed. On the event loop."""
        if isinstance(error, EngineError):
            self.failed(service.transcriber.engine.status().failed or error.reason)
        elif not (self._over or self._trying):
            # In a context of its own, as it is no part of the request that failed.
            self._trying = Context().run(asyncio.ensure_future, self._try(service))

    def end(self) -> None:
        """Tell nothing more."""
        self._over = True

    async def _try(self, service: Service) -> None:
        try:
            await service.transcribe(Request(bundled_clips()[0].path))
        except DecodingError as error:
            self.failed(f"a clip that it has transcribed before {error.reason}")
        except KitError:  # full, overdue, over: none of them tells of the engine
            pass
        finally:
            self._trying = None


class ServerStoppedError(BaseException):
    """The server shall end while nothing is worth waiting for."""


class SignalHandler:
    """SIGTERM drains the server. SIGINT gives up what it has accepted, whether or not SIGTERM came first; SIGTERM after
    SIGINT or SIGTERM changes nothing. SIGHUP calls `on_hangup` and ends nothing."""

    def __init__(self, life: ServerState, *, on_hangup: Callable[[], None] = lambda: None) -> None:
        self._life, self._on_hangup = life, on_hangup
        self._raising = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Until the end of the block they are handled so."""
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raises StoppedError in the block as soon as one of them is there."""
        self._raising = True
        try:
            if self._life.ending:
                raise ServerStoppedError
            yield
        finally:
            self._raising = False

    def _handle(self, number: int, _: Any) -> None:
        """Prints nothing: what it interrupts may be printing."""
        if number == signal.SIGHUP:
            self._on_hangup()
            return
        self._life.stop(signal.Signals(number).name, at_once=number == signal.SIGINT)
        if self._raising:
            self._raising = False
            raise ServerStoppedError


class EngineLostError(FaultError):
    """The engine fails again and again, or its device is at fault when it is loaded. A new process may do better: the
    device's context ends with the old one."""

    exit_code = LOST  # 70 in sysexits.h; supervisors and containers start again after it


@dataclass(frozen=True)
class EngineManager:
    """Keeps an engine for `life` and what listens. `on_ready` hears the port each time an engine is ready, `observers`
    the work of all engines."""

    settings: Settings
    life: ServerState
    listener: HttpServer
    stops: SignalHandler
    on_ready: Callable[[int], None]
    observers: Sequence[Observer]

    def run(self, policy: Policy) -> DrainSummary:
        """Serve until the server ends, with one engine after the other.

        Raises what loading the first one raises where that is no fault of a device, StoppedError where the server ends
        while there is none, and EngineLostError where the first one cannot be loaded because of such a fault, or they
        fail more often than `policy` allows; servers elsewhere may stay away for as long as they like.
        """
        life, crashes, why = self.life, Crashes(policy), ""
        while True:
            try:
                return self._serve_with_one(why)
            except Exception as error:  # torch, CANN and files raise what they like
                if not (life.served or is_fault(error)):
                    raise
                foreseen = isinstance(error, KitError)
                words = str(error) if foreseen else f"{type(error).__name__}: {error}"
                if not foreseen or (life.served and not isinstance(error, EngineError)):  # else it is logged elsewhere
                    again = " again" if life.served else ""
                    log.error("the engine cannot be loaded%s: %s", again, words, exc_info=None if foreseen else error)
                if not life.served:
                    subject, reason, advice = error.args if foreseen else ("the engine", words, "")
                    raise EngineLostError(subject, reason, advice or ADVICE) from error
                life.crashed(words)
            pause = crashes.add(monotonic())
            if pause is None and self._is_front:  # a new process would do nothing for servers elsewhere
                pause = policy.longest_pause
            if pause is None:
                reason = f"has failed, and had been loaded again {policy}: {life.crash}"
                raise EngineLostError("the engine", reason, ADVICE)
            why = f"the engine has failed: {life.crash}"
            life.enter(f"restarting in {pause:g} s: {why}", level=logging.ERROR)
            if life.pause(pause):
                raise ServerStoppedError
            life.reload()

    @property
    def _is_front(self) -> bool:
        """Whether the model is on servers elsewhere."""
        return self.settings.engine_name == "vllm" and bool(self.settings.vllm_url)

    def _serve_with_one(self, why: str) -> DrainSummary:
        """Raises EngineError when it fails, and what loading it raises. `why` there was another before."""
        watch, loading = FailureDetector(self.life.crashed), Loading(self.life, self.settings.model, why)
        with contextlib.ExitStack() as stack:
            with self.stops.interrupting():
                loading.begin()
                observers = (watch, loading, *self.observers)
                transcriber = stack.enter_context(opened(self.settings, observers=observers))
                adopt()  # loading has imported transformers
                loading.end()
                self.life.enter(f"warming up again: {why}" if why else "warming up")
                warm_up(transcriber)
            stack.enter_context(frozen_heap())
            service = Service(transcriber, on_trouble=lambda error: watch.trouble(service, error))
            try:
                return self._serve(service)
            finally:
                watch.end()
                service.close()

    def _serve(self, service: Service) -> DrainSummary:
        life, device = self.life, service.transcriber.device
        life.enter(f"ready on {device.name} ({device.description()}), port {self.listener.port}")
        life.ready(service)
        systemd.notify(READY=1)
        self.on_ready(self.listener.port)
        if life.await_end():
            log.info("%s", life.stage)
            systemd.stopping(stop_seconds(self.settings))
            return drain(life, service, self.listener, seconds=self.settings.drain_seconds)
        lost = _lost(life)
        self.listener.call(functools.partial(service.give_up, lost))
        life.await_idle(LAST_ANSWERS)
        raise lost


def is_fault(error: Exception) -> bool:
    """Whether what an engine raised may go away by itself. torch and CANN raise a RuntimeError for all that happens on
    a device; an operator that it does not have is no such fault. Of a clip that was not decoded, the cause counts."""
    kinds = (FaultError, RuntimeError, MemoryError)
    told = [one for one in (error, error.__cause__) if isinstance(one, kinds)]
    return bool(told) and not any(isinstance(one, NotImplementedError) for one in told)


@contextlib.contextmanager
def opened(settings: Settings, *, observers: Sequence[Observer]) -> Iterator[Transcriber]:
    """`open_transcriber`, of which nothing is left on the device after the block."""
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
def frozen_heap() -> Iterator[None]:
    """Within the block the garbage collector looks only at what was made in it: torch and the model are a million
    objects, and to look at them all takes half a second in which nobody is answered."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def drain(life: ServerState, service: Service, listener: HttpServer, *, seconds: float) -> DrainSummary:
    """Wait until what was accepted is answered; what takes longer than `seconds`, or than until the server shall end at
    once, is told that it ends, and what the engine fails, that."""
    waited_for = life.accepted
    if life.await_drained(seconds):
        return DrainSummary(waited_for)
    left = life.accepted
    listener.call(functools.partial(service.give_up, _lost(life) if life.crash else STOPPING))
    life.await_idle(LAST_ANSWERS)
    return DrainSummary(waited_for - left, left)


def _lost(life: ServerState) -> EngineError:
    return EngineError("the engine", f"has failed: {life.crash}", "try again later")
