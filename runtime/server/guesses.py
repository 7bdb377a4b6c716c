"""Wrong keys, which are counted by the address that they come from, so that nobody tries many."""

import ipaddress
import math
import time
from functools import cached_property

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import Scope

from runtime.server.errors import ApiError
from runtime.server.keys import given_key

MOST = RateLimitItemPerMinute(10)  # wrong keys of one address
SITE = 64  # bits of an IPv6 address that are not its owner's to choose


class Guesses:
    """Those of the last minute. A right key is never asked about here."""

    def answer(self, scope: Scope, refusal: ApiError) -> ApiError:
        """What to answer to a request that is refused with 401: 429 where its address gave too many wrong keys. To
        give none is no guess."""
        if not given_key(scope):
            return refusal
        where = _site(scope["client"][0])
        if self._window.hit(MOST, where):
            return refusal
        seconds = max(1, math.ceil(self._window.get_window_stats(MOST, where).reset_time - time.time()))
        words = f"more than {MOST.amount} wrong keys came from your address within a minute; try again in {seconds} s"
        slowed = ApiError(429, words, code="too_many_wrong_keys")
        slowed.headers["Retry-After"] = str(seconds)
        return slowed

    @cached_property
    def _window(self) -> MovingWindowRateLimiter:
        return MovingWindowRateLimiter(MemoryStorage())


def _site(address: str) -> str:
    found = ipaddress.ip_address(address)
    return address if found.version == 4 else str(ipaddress.ip_network((found.packed, SITE), strict=False))
