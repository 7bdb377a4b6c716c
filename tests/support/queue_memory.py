"""The memory that waiting requests hold, seen in a process of its own whose engine is held still.

Its model is the demo in that process, on the CPU, whatever the settings say: what waits has not met the model.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from env.errors import KitError
from env.settings import DEMO, Settings
from runtime.demo import bundled_clips
from runtime.engines import Observer
from runtime.measure.load_generator import Client, Pipe, apart, serving
from runtime.model.device import Device
from runtime.server.serve import raise_file_limit
from runtime.transcriber import open_transcriber

PATIENCE = 120.0  # seconds until all requests are there
PAUSE = 0.2  # seconds between two looks; when they see the same, all is there


@dataclass(frozen=True)
class Waiting:
    """Requests that wait, and the bytes of memory that the server's process held before and with them."""

    requests: int
    before: int
    held: int

    @property
    def added(self) -> int:
        """Bytes for all of them."""
        return self.held - self.before


class Hold(Observer):
    """Holds the engine still, once it is told to."""

    def __init__(self) -> None:
        self._go_on = threading.Event()
        self._go_on.set()

    def hold(self) -> None:
        """From now on, no batch is decoded."""
        self._go_on.clear()

    def release(self) -> None:
        """Go on, so that it can end."""
        self._go_on.set()

    def batch_started(self, waits: Sequence[float], audio_seconds: float) -> None:  # noqa: ARG002 - Observer's
        """Waits here."""
        self._go_on.wait()


def measure(settings: Settings, files: Sequence[bytes], *, requests: int) -> Waiting:
    """Ask a server so many times at once, with these files in turn. Raises KitError where it does not accept all."""
    raise_file_limit()
    calm = {"engine": "transformers", "model": DEMO, "device": "cpu", "dtype": "float32", "max_waiting": requests}
    with apart(_serve, settings.model_copy(update=calm), name="the server") as pipe, ExitStack() as stack:
        port, before = pipe.recv()
        for number in range(requests):
            client = Client(port)
            stack.callback(client.close)
            client.send(files[number % len(files)])
        deadline = time.monotonic() + PATIENCE
        last, seen = (0, 0), (0, before)  # how many requests are there, and the memory
        while seen[0] < requests or seen != last:
            if time.monotonic() > deadline:
                raise KitError("the server", f"held {seen[0]} of {requests} requests after {PATIENCE:g} s")
            time.sleep(PAUSE)
            pipe.send(None)
            last, seen = seen, pipe.recv()
        return Waiting(requests, before, seen[1])


def _serve(pipe: Pipe, settings: Settings) -> None:
    """Tell the port and the memory before requests wait; then, when asked, how many do, and the memory."""
    raise_file_limit()
    hold = Hold()
    with open_transcriber(settings, observers=[hold]) as transcriber, serving(transcriber) as server:
        client = Client(server.port)
        client.transcribe(bundled_clips()[0].path.read_bytes())
        client.close()
        hold.hold()
        pipe.send((server.port, _memory()))
        try:
            while True:
                pipe.recv()
                pipe.send((server.service.pending, _memory()))
        finally:
            hold.release()


def _memory() -> int:
    return Device("cpu").memory().used
