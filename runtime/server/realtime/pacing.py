"""Pacing of audio that arrives faster than real time, as from a file, so that it holds up nobody else."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

MAX_LEAD_SECONDS = 2.0  # of audio ahead of the clock: what a microphone's buffers bring at once


class Pace:
    """How far a session's audio is ahead of the clock: a leaky bucket of seconds."""

    def __init__(self) -> None:
        self._lead, self._at = 0.0, time.monotonic()

    def is_ahead(self, seconds: float) -> bool:
        """Add so many seconds of audio; True if the session is now more than MAX_LEAD_SECONDS ahead."""
        now = time.monotonic()
        self._lead, self._at = max(0.0, self._lead - (now - self._at)) + seconds, now
        return self._lead > MAX_LEAD_SECONDS


class CatchUpLimiter:
    """Shared by all sessions. Of those that are ahead, one is processed at a time, followed by a pause as long as that
    took: voice activity detection holds the event loop and Python's lock, which the engine's thread needs."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def slot(self, *, is_ahead: bool) -> AsyncIterator[None]:
        """Wait until a slice of audio may be processed in the block."""
        if not is_ahead:
            yield
            await asyncio.sleep(0)
            return
        async with self._lock:
            started_at = time.monotonic()
            yield
            await asyncio.sleep(time.monotonic() - started_at)
