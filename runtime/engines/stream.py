"""An utterance on its way through an engine, between the thread that decodes it and those that wait for it."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass

from runtime.engines import Decoded, Event, Utterance

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Listener:
    """Who listens, and how many events it was told."""

    call: Callable[[Event], None]
    told: int = 0


class Stream:
    """The tokens decoded so far, and the end: a result or a failure. Any number of threads may read it."""

    def __init__(self, utterance: Utterance, *, on_cancel: Callable[["Stream"], None] = lambda _: None) -> None:
        self.utterance = utterance
        self.since = time.monotonic()  # when it was handed over
        self._on_cancel = on_cancel
        self._events: list[Event] = []  # tokens, then one end
        self._listeners: list[_Listener] = []
        self._changed = threading.Condition()  # reentrant: a listener may cancel, or add another

    def __iter__(self) -> Iterator[int]:
        """The tokens as they come, end tokens left out. Raises what `result` raises."""
        position = 0
        while True:
            event = self._wait(position)
            if not isinstance(event, int):
                break
            yield event
            position += 1
        self.result()

    def result(self) -> Decoded:
        """Wait for the end; raises what made it fail, CancelledError after `cancel`."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended)
            end = self._events[-1]
        if isinstance(end, BaseException):
            raise end
        assert isinstance(end, Decoded)
        return end

    def cancel(self) -> None:
        """Give up this utterance: it leaves the queue, or its batch as soon as the batch's next token is due."""
        self._on_cancel(self)
        self.push(CancelledError())

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Tell `listener` every token and the end, what came before included."""
        with self._changed:
            self._listeners.append(_Listener(listener))
            self._tell()

    @property
    def ended(self) -> bool:
        """Whether the end is there."""
        return bool(self._events) and not isinstance(self._events[-1], int)

    def push_token(self, number: int, token: int) -> None:
        """The engine's side: token `number`, from 1. One that was there before a batch was decoded anew is left out."""
        with self._changed:
            if number > len(self._events):
                self.push(token)

    def push(self, event: Event) -> None:
        """The engine's side: a token or the end. After the end, nothing counts."""
        with self._changed:
            if self.ended:
                return
            self._events.append(event)
            self._changed.notify_all()
            self._tell()

    def _wait(self, position: int) -> Event:
        """The event at `position`, from 0, as soon as it is there."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) > position)
            return self._events[position]

    def _tell(self) -> None:
        """Tell every listener what it has not heard; those to whom nothing more can come are forgotten."""
        for listener in tuple(self._listeners):
            while listener.told < len(self._events):
                listener.told += 1  # before the call, which may bring about further events
                try:
                    listener.call(self._events[listener.told - 1])
                except Exception:
                    log.exception("a listener failed; it is told nothing more of its utterance")
                    listener.told = sys.maxsize
        self._listeners = [
            listener for listener in self._listeners if not self.ended and listener.told <= len(self._events)
        ]
