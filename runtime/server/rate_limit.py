"""How much each caller may ask: so many requests within a minute, so many at once, so many sessions."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from runtime.server.errors import ApiError

SOON = 1  # seconds; nobody knows when one of a caller's own requests ends
LATER = 5  # seconds, of a session
FEW = 16  # places; of fewer, a caller may take all


@dataclass(frozen=True)
class Caller:
    """Who asks: a key's owner, or an address. Limits are None where there is none."""

    name: str
    per_minute: int | None
    at_once: int | None
    sessions: int | None


def share(places: int) -> int | None:
    """How many of the server's places one caller may take unless a setting says otherwise: half, so that whoever takes
    what it can leaves room for others, and a proxy in front, whose callers have one address, still has many."""
    return places // 2 if places >= FEW else None


class _PerMinute(RateLimitItemPerMinute):
    """Counted by caller alone, so that the count goes on where the limit is changed."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        """Of the caller."""
        return "/".join(map(str, identifiers))


class Quotas:
    """Counts the requests of callers and, apart from them, their sessions, all on one event loop."""

    def __init__(self) -> None:
        self._answering: Counter[str] = Counter()
        self._sessions: Counter[str] = Counter()

    @contextmanager
    def taking(self, caller: Caller, *, session: bool = False) -> Iterator[dict[str, str]]:
        """Count a request for as long as it is answered, or a session while it is open; gives the headers that tell the
        caller of its limit.

        Raises ApiError, 429, for one beyond a limit, which then counts for none.
        """
        counter = self._sessions if session else self._answering
        count = counter[caller.name]
        if session and caller.sessions is not None and count >= caller.sessions:
            words = f"{count} of your realtime sessions are open, the limit of each caller is {caller.sessions}"
            raise _refusal(f"{words} (ASR_SESSIONS_AT_ONCE)", "too_many_sessions", LATER)
        if not session and caller.at_once is not None and count >= caller.at_once:
            words = f"{count} of your requests are being answered, the limit of each caller is {caller.at_once}"
            raise _refusal(f"{words} (ASR_REQUESTS_AT_ONCE)", "too_many_at_once", SOON)
        headers = self._counted(caller.name, caller.per_minute) if caller.per_minute is not None else {}
        counter[caller.name] += 1
        try:
            yield headers
        finally:
            counter[caller.name] -= 1
            if not counter[caller.name]:
                del counter[caller.name]

    def _counted(self, name: str, per_minute: int) -> dict[str, str]:
        """OpenAI's headers. `reset` is when the oldest of the last minute's requests no longer counts."""
        item = _PerMinute(per_minute)
        allowed = self._window.hit(item, name)
        stats = self._window.get_window_stats(item, name)
        seconds = max(1, math.ceil(stats.reset_time - time.time()))
        headers = {
            "x-ratelimit-limit-requests": str(per_minute),
            "x-ratelimit-remaining-requests": str(max(0, stats.remaining)),
            "x-ratelimit-reset-requests": f"{seconds}s",
        }
        if not allowed:
            words = f"you made {per_minute} requests within a minute, the limit; the next is possible in {seconds} s"
            refusal = _refusal(words, "rate_limit_exceeded", seconds)
            refusal.headers.update(headers)
            raise refusal
        return headers

    @cached_property
    def _window(self) -> MovingWindowRateLimiter:
        return MovingWindowRateLimiter(MemoryStorage())


def _refusal(words: str, code: str, seconds: int) -> ApiError:
    refusal = ApiError(429, words, code=code)
    refusal.headers["Retry-After"] = str(seconds)
    return refusal
