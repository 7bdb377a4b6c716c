"""Limits of each caller: requests within a minute, requests at once, open sessions."""

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

REQUEST_RETRY_SECONDS = 1  # Retry-After; when one of the caller's requests ends is unknown
SESSION_RETRY_SECONDS = 5
MIN_SHARED_SLOTS = 16  # of fewer, one caller may take all


@dataclass(frozen=True)
class Caller:
    """A key's owner, or an address, with its limits; None: no limit."""

    name: str
    per_minute: int | None
    at_once: int | None
    sessions: int | None


def fair_share(slots: int) -> int | None:
    """How many of the server's slots one caller may take by default: half, so that a greedy caller leaves room for
    others, and a proxy, whose callers share an address, still has many."""
    return slots // 2 if slots >= MIN_SHARED_SLOTS else None


class _PerMinute(RateLimitItemPerMinute):
    """Counts by caller alone, so that the count survives a change of the limit."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return "/".join(map(str, identifiers))


class Quotas:
    """Counts callers' requests and, separately, sessions. For one event loop."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._sessions: Counter[str] = Counter()

    @contextmanager
    def reserve(self, caller: Caller, *, session: bool = False) -> Iterator[dict[str, str]]:
        """Count a request while it is answered, or a session while it is open; yields the rate limit's headers.

        Raises ApiError, 429, beyond a limit; a refused request does not count.
        """
        counter = self._sessions if session else self._requests
        count = counter[caller.name]
        if session and caller.sessions is not None and count >= caller.sessions:
            message = f"{count} of your realtime sessions are open, the limit of each caller is {caller.sessions}"
            raise _too_many(f"{message} (ASR_SESSIONS_AT_ONCE)", "too_many_sessions", SESSION_RETRY_SECONDS)
        if not session and caller.at_once is not None and count >= caller.at_once:
            message = f"{count} of your requests are being answered, the limit of each caller is {caller.at_once}"
            raise _too_many(f"{message} (ASR_REQUESTS_AT_ONCE)", "too_many_at_once", REQUEST_RETRY_SECONDS)
        headers = self._count_request(caller.name, caller.per_minute) if caller.per_minute is not None else {}
        counter[caller.name] += 1
        try:
            yield headers
        finally:
            counter[caller.name] -= 1
            if not counter[caller.name]:
                del counter[caller.name]

    def _count_request(self, name: str, per_minute: int) -> dict[str, str]:
        """Count a request, and return OpenAI's headers. `reset` is when the oldest request of the last minute no longer
        counts."""
        item = _PerMinute(per_minute)
        allowed = self._limiter.hit(item, name)
        stats = self._limiter.get_window_stats(item, name)
        seconds = max(1, math.ceil(stats.reset_time - time.time()))
        headers = {
            "x-ratelimit-limit-requests": str(per_minute),
            "x-ratelimit-remaining-requests": str(max(0, stats.remaining)),
            "x-ratelimit-reset-requests": f"{seconds}s",
        }
        if not allowed:
            message = f"you made {per_minute} requests within a minute, the limit; the next is possible in {seconds} s"
            refusal = _too_many(message, "rate_limit_exceeded", seconds)
            refusal.headers.update(headers)
            raise refusal
        return headers

    @cached_property
    def _limiter(self) -> MovingWindowRateLimiter:
        return MovingWindowRateLimiter(MemoryStorage())


def _too_many(message: str, code: str, seconds: int) -> ApiError:
    refusal = ApiError(429, message, code=code)
    refusal.headers["Retry-After"] = str(seconds)
    return refusal
