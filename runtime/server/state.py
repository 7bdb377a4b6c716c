"""How far the server is, which requests it has accepted, and what ends it."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from starlette.requests import HTTPConnection

from runtime.ops.process.state import requests
from runtime.server.errors import ApiError
from runtime.server.service import Service
from runtime.server.systemd import notify

log = logging.getLogger(__name__)

Phase = Literal["starting", "ready", "restarting", "draining"]


class ServerState:
    """From starting over ready to draining, and to restarting where the engine fails. The thread that loads and stops
    the model waits here, the one that answers asks; signals, operators and the engine tell. `restarts` counts the times
    that an engine was loaded anew, `begun` is `time.monotonic()` of the start."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.restarts = 0
        self.crash = ""  # why the engine has failed; empty while it has not
        self.served = False  # whether it has ever been ready
        self.ending = False  # whether the server ends
        self._stage = "starting"
        self._drained_by = ""  # a signal or an admin call; empty where requests are accepted
        self._at_once = False
        self._service: Service | None = None
        self._accepted = 0
        self._changed = threading.Condition()  # reentrant: a signal's handler may interrupt whoever holds it

    @property
    def status(self) -> Phase:
        """Requests are accepted where it is ready."""
        if self._drained_by:
            return "draining"
        if self.loaded:
            return "ready"
        return "restarting" if self.served else "starting"

    @property
    def stage(self) -> str:
        """The status in more words."""
        if self._drained_by:
            return f"draining after {self._drained_by}, {requests(self._accepted)} to be answered"
        return self._stage

    @stage.setter
    def stage(self, words: str) -> None:
        self._stage = words

    def enter(self, stage: str, *, level: int = logging.INFO) -> None:
        """A new stage, which the log and systemd have too."""
        self.stage = stage
        notify(STATUS=stage)
        log.log(level, "%s", stage)

    def ready(self, service: Service) -> None:
        """From now on requests are accepted, unless the server is draining already."""
        with self._changed:
            self._service, self.served = service, True

    def crashed(self, reason: str) -> None:
        """From now on requests are refused, until an engine was loaded anew. Of several reasons the first counts."""
        with self._changed:
            self.crash = self.crash or reason
            self.stage = f"the engine has failed: {self.crash}"
            self._service = None
            self._changed.notify_all()

    def reload(self) -> None:
        """The engine is loaded anew."""
        with self._changed:
            self.crash = ""
            self.restarts += 1

    def drain(self, by: str = "an admin call") -> None:
        """From now on requests are refused; those that were accepted go on."""
        with self._changed:
            self._drained_by = by

    def resume(self) -> bool:
        """The opposite of `drain`; False where the server ends."""
        with self._changed:
            if not self.ending:
                self._drained_by = ""
            return not self.ending

    def stop(self, by: str, *, at_once: bool) -> None:
        """Drain, then end the server. With `at_once` what was accepted is given up; nothing takes that back."""
        with self._changed:
            self._drained_by, self.ending = by, True
            self._at_once = self._at_once or at_once
            self._changed.notify_all()

    @property
    def loaded(self) -> Service | None:
        """What transcribes; None while there is none."""
        return None if self.crash else self._service

    @property
    def service(self) -> Service:
        """What transcribes. Only for requests that were accepted. Raises ApiError, 503, if it has failed since."""
        loaded = self.loaded
        if loaded is None:
            raise self._refusal()
        return loaded

    @property
    def accepted(self) -> int:
        """Requests that are being answered."""
        return self._accepted

    @contextmanager
    def accept(self) -> Iterator[None]:
        """Count a request for as long as it is answered. Raises ApiError, 503, unless the server is ready."""
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

    def await_end(self) -> bool:
        """Whether the server ends, as soon as that is so or its engine has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self.ending or self.crash)
            return self.ending

    def pause(self, seconds: float) -> bool:
        """Whether the server ends, as soon as that is so or the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ending, timeout=seconds)

    def await_drained(self, seconds: float) -> bool:
        """Whether all accepted requests were answered; waits as long as there is a point in it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._accepted or self._at_once or self.crash, timeout=seconds)
            return not self._accepted

    def await_idle(self, seconds: float) -> bool:
        """Whether all accepted requests were answered within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._accepted, timeout=seconds)

    def _refusal(self) -> ApiError:
        code = "engine_failed" if self.crash or self.status == "restarting" else self.status
        return ApiError(503, f"the server is {self.status}: {self.stage}", code=code)


def life_of(connection: HTTPConnection) -> ServerState:
    """The life of the server that answers a request or leads a conversation."""
    found = connection.app.state.life
    assert isinstance(found, ServerState)
    return found
