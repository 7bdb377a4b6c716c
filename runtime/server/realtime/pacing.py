"""Sound that comes faster than it is spoken, as from a file: heard in turns, so that nobody else is held up by it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

AHEAD = 2.0  # seconds of sound by which a client may be ahead of the clock: what a microphone's buffers bring at once


class Pace:
    """How far the sound of one session is ahead of the clock: a leaky bucket of seconds."""

    def __init__(self) -> None:
        self._ahead, self._at = 0.0, time.monotonic()

    def hurries(self, seconds: float) -> bool:
        """Whether the session is too far ahead with so many seconds of sound more."""
        now = time.monotonic()
        self._ahead, self._at = max(0.0, self._ahead - (now - self._at)) + seconds, now
        return self._ahead > AHEAD


class CatchUpLimiter:
    """Of all sessions. Of those that hurry, one is heard at a time, and then none for as long as that took: following
    the voice holds the event loop and Python's lock, which the engine's thread needs."""

    def __init__(self) -> None:
        self._hurried = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self, *, hurried: bool) -> AsyncIterator[None]:
        """A block in which a slice of sound is heard."""
        if not hurried:
            yield
            await asyncio.sleep(0)
            return
        async with self._hurried:
            began = time.monotonic()
            yield
            await asyncio.sleep(time.monotonic() - began)
