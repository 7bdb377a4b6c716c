"""How far the server is, and which requests it has accepted."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from fastapi import Request

from runtime.server.errors import ApiError
from runtime.server.service import Service


class Life:
    """From starting over ready to draining. The thread that loads and stops the model changes it, the one that answers
    reads it."""

    def __init__(self) -> None:
        self.stage = "starting"
        self.status: Literal["starting", "ready", "draining"] = "starting"
        self._service: Service | None = None
        self._accepted = 0
        self._changed = threading.Condition()

    def ready(self, service: Service) -> None:
        """From now on requests are accepted, unless the server is draining already."""
        with self._changed:
            self._service = service
            if self.status == "starting":
                self.status = "ready"

    def drain(self) -> None:
        """From now on requests are refused."""
        with self._changed:
            self.status = "draining"

    @property
    def service(self) -> Service:
        """What transcribes. Only for requests that were accepted."""
        assert self._service, "a request was accepted before the server was ready"
        return self._service

    @property
    def accepted(self) -> int:
        """Requests that are being answered."""
        return self._accepted

    @contextmanager
    def accept(self) -> Iterator[None]:
        """Count a request for as long as it is answered. Raises ApiError, 503, unless the server is ready."""
        with self._changed:
            if self.status != "ready":
                raise ApiError(503, f"the server is {self.status}: {self.stage}", code=self.status)
            self._accepted += 1
        try:
            yield
        finally:
            with self._changed:
                self._accepted -= 1
                self._changed.notify_all()

    def await_idle(self, seconds: float) -> bool:
        """Whether all accepted requests were answered within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._accepted, timeout=seconds)


def life_of(request: Request) -> Life:
    """The life of the server that answers a request."""
    found = request.app.state.life
    assert isinstance(found, Life)
    return found
