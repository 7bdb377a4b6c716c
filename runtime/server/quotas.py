"""How much each caller may ask: so many requests within a minute, so many at once."""

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


@dataclass(frozen=True)
class Caller:
    """Who asks: a key's owner, or an address. Limits are None where there is none."""

    name: str
    per_minute: int | None
    at_once: int | None


class Quotas:
    """Counts the requests of callers, all on one event loop."""

    def __init__(self) -> None:
        self._answering: Counter[str] = Counter()

    @contextmanager
    def taking(self, caller: Caller) -> Iterator[dict[str, str]]:
        """Count a request for as long as it is answered; gives the headers that tell the caller of its limit.

        Raises ApiError, 429, for a request beyond a limit, which then counts for none.
        """
        answering = self._answering[caller.name]
        if caller.at_once is not None and answering >= caller.at_once:
            words = f"{answering} of your requests are being answered, the limit is {caller.at_once}"
            raise _refusal(words, "too_many_at_once", SOON)
        headers = self._counted(caller.name, caller.per_minute) if caller.per_minute is not None else {}
        self._answering[caller.name] += 1
        try:
            yield headers
        finally:
            self._answering[caller.name] -= 1
            self._answering += Counter()  # forgets who has none

    def _counted(self, name: str, per_minute: int) -> dict[str, str]:
        """OpenAI's headers. `reset` is when the oldest of the last minute's requests no longer counts."""
        item = RateLimitItemPerMinute(per_minute)
        allowed = self._window.hit(item, name)
        stats = self._window.get_window_stats(item, name)
        seconds = max(1, math.ceil(stats.reset_time - time.time()))
        headers = {
            "x-ratelimit-limit-requests": str(per_minute),
            "x-ratelimit-remaining-requests": str(stats.remaining),
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
