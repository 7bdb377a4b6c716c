"""A server's life: listen, check, load, warm up, be ready, drain."""

import resource
import signal
import threading
from collections.abc import Callable
from typing import Any

from env.loading import under_project
from env.settings import Settings
from runtime.measure.smoke import bundled_clips
from runtime.server import preflight
from runtime.server.app import create_app
from runtime.server.keys import Keys, read_keys
from runtime.server.life import Life
from runtime.server.listening import Listener, listening
from runtime.server.service import Service
from runtime.transcriber import open_transcriber

FILES = 65536  # open at most: each request that waits holds a connection and perhaps an upload
LAST_ANSWERS = 1.0  # seconds for requests that were given up to be told so


class _StoppedError(BaseException):
    """SIGTERM or SIGINT before the server was ready, when nothing is worth waiting for."""


class Tally:
    """How much of the weights is verified, in the health endpoint's words."""

    def __init__(self, life: Life) -> None:
        self._life, self._bytes = life, 0

    def add(self, count: int) -> None:
        """`count` bytes more."""
        self._bytes += count
        self._life.stage = f"verifying weights, {self._bytes / 2**30:.1f} GiB"


def serve(settings: Settings, *, say: Callable[[str], None], on_ready: Callable[[int], None] = lambda _: None) -> None:
    """Run until SIGTERM or SIGINT, then drain and return. `say` hears each stage, `on_ready` the port once it is ready.

    Ready means that a clip was transcribed through the path that requests take. Draining means that new requests are
    refused and those that were accepted are answered, for at most ASR_DRAIN_SECONDS; what is not done then is refused
    too. Raises KitError where the server cannot start.
    """
    stopped, loaded = threading.Event(), threading.Event()
    life = Life()

    def stage(words: str) -> None:
        life.stage = words
        say(words)

    def stop(number: int, _: Any) -> None:
        first = not stopped.is_set()
        stopped.set()
        life.drain()
        stage(f"draining after {signal.Signals(number).name}")
        if first and not loaded.is_set():
            raise _StoppedError

    allow_files(FILES)
    app = create_app(life, keys=read_keys(under_project(settings.keys_file)) if settings.keys_file else Keys())
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with listening(app, host=settings.host, port=settings.port) as listener:
            stage("verifying weights")
            preflight.check(settings, on_bytes=Tally(life).add)
            stage(f"loading {settings.model}")
            with open_transcriber(settings) as transcriber:
                stage("warming up")
                transcriber.transcribe(bundled_clips()[0].path)
                service = Service(transcriber)
                loaded.set()
                if not stopped.is_set():
                    where = f"{transcriber.device.name} ({transcriber.device.description()})"
                    stage(f"ready on {where}, port {listener.port}")
                    life.ready(service)
                    on_ready(listener.port)
                stopped.wait()
                drain(life, service, listener, seconds=settings.drain_seconds)
    except _StoppedError:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    stage("stopped")


def allow_files(count: int) -> None:
    """Let this process open that many files, or as many as the system permits it; many hosts begin with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def drain(life: Life, service: Service, listener: Listener, *, seconds: float) -> None:
    """Wait until what was accepted is answered; what takes longer than `seconds` is told that the server ends."""
    if not life.await_idle(seconds):
        listener.call(service.give_up)
        life.await_idle(LAST_ANSWERS)
    service.close()
