"""What SIGTERM, SIGINT and SIGHUP do to a server."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runtime.server.life import Life

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StoppedError(BaseException):
    """The server shall end while nothing is worth waiting for."""


class Stops:
    """SIGTERM drains the server. SIGINT gives up what it has accepted, whether or not SIGTERM came first; SIGTERM after
    SIGINT or SIGTERM changes nothing. SIGHUP calls `on_hangup` and ends nothing."""

    def __init__(self, life: Life, *, on_hangup: Callable[[], None] = lambda: None) -> None:
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
                raise StoppedError
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
            raise StoppedError
