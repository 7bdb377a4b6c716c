"""What SIGTERM and SIGINT do to a server."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runtime.server.life import Life


class StoppedError(BaseException):
    """The server shall end while nothing is worth waiting for."""


class Stops:
    """SIGTERM drains the server. SIGINT gives up what it has accepted, whether or not SIGTERM came first; SIGTERM after
    SIGINT or SIGTERM changes nothing."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._raising = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Until the end of the block both are handled so."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
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
                raise StoppedError
            yield
        finally:
            self._raising = False

    def _handle(self, number: int, _: Any) -> None:
        """Prints nothing: what it interrupts may be printing."""
        self._life.stop(signal.Signals(number).name, at_once=number == signal.SIGINT)
        if self._raising:
            self._raising = False
            raise StoppedError
