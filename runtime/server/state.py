"""The server's state machine: starting, ready, restarting, draining; and the requests that it has accepted."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from starlette.requests import HTTPConnection

from runtime.ops.process.state import count_requests
from runtime.server.errors import ApiError
from runtime.server.service import Service
from runtime.server.systemd import notify

log = logging.getLogger(__name__)

ServerPhase = Literal["starting", "ready", "restarting", "draining"]


class ServerState:
    """Starting → ready → draining, with restarting → ready each time that the engine fails. Thread-safe: the thread
    that loads and stops the model waits here, the HTTP thread reads, and signals, operators and the engine change it.
    `restarts` counts engine restarts; `started_at` is the start in `time.monotonic()`."""

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self.restarts = 0
        self.failure = ""  # why the engine has failed; empty while it has not
        self.was_ready = False  # whether it has ever been ready
        self.stopping = False  # whether the server ends
        self._status_text = "starting"
        self._drained_by = ""  # a signal or an admin call; empty where requests are accepted
        self._immediate = False
        self._service: Service | None = None
        self._accepted = 0
        self._changed = threading.Condition()  # reentrant: a signal's handler may interrupt whoever holds it

    @property
    def status(self) -> ServerPhase:
        """The state's name; requests are accepted when it is "ready"."""
        if self._drained_by:
            return "draining"
        if self.loaded:
            return "ready"
        return "restarting" if self.was_ready else "starting"

    @property
    def status_text(self) -> str:
        """The state in words, for people: health answers, the log, systemd."""
        if self._drained_by:
            return f"draining after {self._drained_by}, {count_requests(self._accepted)} to be answered"
        return self._status_text

    @status_text.setter
    def status_text(self, text: str) -> None:
        self._status_text = text

    def announce(self, status_text: str, *, level: int = logging.INFO) -> None:
        """Set the status text, and log it and tell systemd."""
        self.status_text = status_text
        notify(STATUS=status_text)
        log.log(level, "%s", status_text)

    def ready(self, service: Service) -> None:
        """Accept requests, unless the server is draining."""
        with self._changed:
            self._service, self.was_ready = service, True

    def engine_failed(self, reason: str) -> None:
        """Refuse requests until an engine is loaded again. Of several reasons the first is kept."""
        with self._changed:
            self.failure = self.failure or reason
            self.status_text = f"the engine has failed: {self.failure}"
            self._service = None
            self._changed.notify_all()

    def restart_engine(self) -> None:
        """Forget the failure and count a restart: another engine is about to be loaded."""
        with self._changed:
            self.failure = ""
            self.restarts += 1

    def drain(self, by: str = "an admin call") -> None:
        """Refuse new requests, because of `by`; accepted ones continue."""
        with self._changed:
            self._drained_by = by

    def resume(self) -> bool:
        """Undo `drain`. False if the server is stopping."""
        with self._changed:
            if not self.stopping:
                self._drained_by = ""
            return not self.stopping

    def stop(self, by: str, *, at_once: bool) -> None:
        """Drain, then stop the server. With `at_once`, give up the accepted requests, irrevocably."""
        with self._changed:
            self._drained_by, self.stopping = by, True
            self._immediate = self._immediate or at_once
            self._changed.notify_all()

    @property
    def loaded(self) -> Service | None:
        """The service; None while no engine is ready."""
        return None if self.failure else self._service

    @property
    def service(self) -> Service:
        """The service, for accepted requests. Raises ApiError, 503, if the engine has failed since."""
        loaded = self.loaded
        if loaded is None:
            raise self._refusal()
        return loaded

    @property
    def accepted(self) -> int:
        """Number of requests and sessions being answered."""
        return self._accepted

    @contextmanager
    def accept(self) -> Iterator[None]:
        """Count a request while it is answered. Raises ApiError, 503, unless the server is ready."""
        with self._changed:
            if self.status != "ready":
                raise self._refusal()
            self._accepted += 1
        try:
            yield
        finally:
            with self._changed:
                self._accepted -= 1
                self._changed.notify_all()

    def wait_end(self) -> bool:
        """Wait until the server stops or its engine fails; True if it stops."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopping or self.failure)
            return self.stopping

    def sleep(self, seconds: float) -> bool:
        """Wait so many seconds, or until the server stops; True if it stops."""
        with self._changed:
            return self._changed.wait_for(lambda: self.stopping, timeout=seconds)

    def wait_drained(self, seconds: float) -> bool:
        """Wait until all accepted requests are answered, the time is over, or waiting became pointless; True if all are
        answered."""
        with self._changed:
            self._changed.wait_for(lambda: not self._accepted or self._immediate or self.failure, timeout=seconds)
            return not self._accepted

    def wait_idle(self, seconds: float) -> bool:
        """Wait until all accepted requests are answered; False if that takes longer than `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._accepted, timeout=seconds)

    def _refusal(self) -> ApiError:
        code = "engine_failed" if self.failure or self.status == "restarting" else self.status
        return ApiError(503, f"the server is {self.status}: {self.status_text}", code=code)


def state_of(connection: HTTPConnection) -> ServerState:
    """The state of the server that a request or session belongs to."""
    found = connection.app.state.server_state
    assert isinstance(found, ServerState)
    return found
