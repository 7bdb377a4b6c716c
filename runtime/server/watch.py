"""Noticing that an engine has failed."""

import asyncio
from collections.abc import Callable
from contextvars import Context

from env.errors import KitError
from runtime.demo import bundled_clips
from runtime.engines import EngineError, Observer
from runtime.server.errors import DecodingError
from runtime.server.service import Service
from runtime.transcriber import Request, Transcriber


def warm_up(transcriber: Transcriber) -> None:
    """Transcribe a clip through the path that requests take. Raises what the engine raises."""
    transcriber.transcribe(bundled_clips()[0].path)


class Watch(Observer):
    """Tells once why an engine has failed, until `end`: the engine says so, or it fails the clip that it was warmed up
    with. That is tried after each failed request: a device that is lost fails them one by one, as if they were bad."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._trying: asyncio.Task[None] | None = None
        self._over = False

    def failed(self, reason: str) -> None:
        """The engine can decode no more."""
        if not self._over:
            self._over = True
            self._tell(reason)

    def trouble(self, service: Service, error: KitError) -> None:
        """The engine failed a request, or is said to have failed. On the event loop."""
        if isinstance(error, EngineError):
            self.failed(service.transcriber.engine.status().failed or error.reason)
        elif not (self._over or self._trying):
            # In a context of its own, as it is no part of the request that failed.
            self._trying = Context().run(asyncio.ensure_future, self._try(service))

    def end(self) -> None:
        """Tell nothing more."""
        self._over = True

    async def _try(self, service: Service) -> None:
        try:
            await service.transcribe(Request(bundled_clips()[0].path))
        except DecodingError as error:
            self.failed(f"a clip that it has transcribed before {error.reason}")
        except KitError:  # full, overdue, over: none of them tells of the engine
            pass
        finally:
            self._trying = None
