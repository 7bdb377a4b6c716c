"""The stream of one utterance's events, from the thread that decodes it to the threads and listeners that wait."""

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
    """A listener, and how many events it was given."""

    call: Callable[[Event], None]
    delivered: int = 0


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
        """End it with CancelledError: it leaves the queue, or its batch at the next decode step."""
        self._on_cancel(self)
        self.push(CancelledError())

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every token and the end, past events included."""
        with self._changed:
            self._listeners.append(_Listener(listener))
            self._deliver()

    @property
    def ended(self) -> bool:
        """Whether the last event, a result or a failure, has been pushed."""
        return bool(self._events) and not isinstance(self._events[-1], int)

    def push_token(self, number: int, token: int) -> None:
        """For the engine: push token `number`, from 1. One that an earlier attempt pushed is dropped."""
        with self._changed:
            if number > len(self._events):
                self.push(token)

    def push(self, event: Event) -> None:
        """For the engine: push a token or the end. After the end, events are dropped."""
        with self._changed:
            if self.ended:
                return
            self._events.append(event)
            self._changed.notify_all()
            self._deliver()

    def _wait(self, position: int) -> Event:
        """Wait for the event at `position`, from 0."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) > position)
            return self._events[position]

    def _deliver(self) -> None:
        """Deliver pending events to every listener; one that has the end is removed."""
        for listener in tuple(self._listeners):
            while listener.delivered < len(self._events):
                listener.delivered += 1  # before the call, which may bring about further events
                try:
                    listener.call(self._events[listener.delivered - 1])
                except Exception:
                    log.exception("a listener failed; it gets no more events of its utterance")
                    listener.delivered = sys.maxsize
        self._listeners = [
            listener for listener in self._listeners if not self.ended and listener.delivered <= len(self._events)
        ]
