"""A server's life: listen, check, load, warm up, be ready, drain."""

import signal
import threading
from collections.abc import Callable
from typing import Any

from env.settings import Settings
from runtime.measure.smoke import bundled_clips
from runtime.server import preflight
from runtime.server.health import Health, health_endpoint
from runtime.transcriber import open_transcriber


class Tally:
    """How much of the weights is verified, in the health endpoint's words."""

    def __init__(self, health: Health) -> None:
        self._health, self._bytes = health, 0

    def add(self, count: int) -> None:
        """`count` bytes more."""
        self._bytes += count
        self._health.stage = f"verifying weights, {self._bytes / 2**30:.1f} GiB"


def serve(settings: Settings, *, say: Callable[[str], None], on_ready: Callable[[int], None] = lambda _: None) -> None:
    """Run until SIGTERM or SIGINT, then drain and return. `say` hears each stage, `on_ready` the port once it is ready.

    Ready means that a clip was transcribed through the path that requests take. Raises KitError where the server
    cannot start.
    """
    stopped = threading.Event()
    health = Health()

    def stage(words: str) -> None:
        health.stage = words
        say(words)

    def stop(number: int, _: Any) -> None:
        stage(f"draining after {signal.Signals(number).name}")
        health.ready = False
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with health_endpoint(settings.host, settings.port, health) as port:
            stage("verifying weights")
            preflight.check(settings, on_bytes=Tally(health).add)
            stage(f"loading {settings.model}")
            with open_transcriber(settings) as transcriber:
                stage("warming up")
                transcriber.transcribe(bundled_clips()[0].path)
                if not stopped.is_set():
                    health.ready = True
                    stage(f"ready on {transcriber.device.name} ({transcriber.device.description()}), port {port}")
                    on_ready(port)
                stopped.wait()
            stage("stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
