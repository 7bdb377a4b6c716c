"""Wrong keys, which are counted by the address that they come from, so that nobody tries many."""

import math
import time
from functools import cached_property

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import Scope

from runtime.server.errors import ApiError
from runtime.server.keys import Key, Keys, digest, given_key
from runtime.urls import network

MOST = RateLimitItemPerMinute(10)  # wrong keys of one address
MOST_KNOWN = 10_000  # keys that were looked at, with the addresses that they came from

Given = tuple[str, bytes]  # address and digest


class Guesses:
    """The keys that addresses have given. To look again at one that an address has given before tells nobody anything:
    so a client whose key was right goes on while others behind its address guess, and one that goes on with an old key
    is no guesser."""

    def __init__(self) -> None:
        self._right: dict[Given, None] = {}  # to which whoever guesses adds nothing
        self._wrong: dict[Given, None] = {}

    def find(self, keys: Keys, scope: Scope) -> Key | None:
        """The key of a request, if it is one of these.

        Raises ApiError, 429, where its address gave too many wrong keys: before a new one is looked at, and instead of
        None for one that is known to be wrong.
        """
        secret = given_key(scope)
        if not secret:
            return None
        where = network(scope["client"][0])
        given = where, digest(secret)
        is_new = given not in self._right and given not in self._wrong
        if is_new and not self._window.test(MOST, "new", where):
            raise self._refusal("new", where)
        key = keys.find(secret)
        _remember(given, self._right if key else self._wrong)
        if key:
            return key
        if is_new:
            self._window.hit(MOST, "new", where)
        if not self._window.hit(MOST, "all", where):
            raise self._refusal("all", where)
        return None

    def _refusal(self, kind: str, where: str) -> ApiError:
        seconds = max(1, math.ceil(self._window.get_window_stats(MOST, kind, where).reset_time - time.time()))
        words = f"more than {MOST.amount} wrong keys came from your address within a minute; try again in {seconds} s"
        slowed = ApiError(429, words, code="too_many_wrong_keys")
        slowed.headers["Retry-After"] = str(seconds)
        return slowed

    @cached_property
    def _window(self) -> MovingWindowRateLimiter:
        return MovingWindowRateLimiter(MemoryStorage())


def _remember(given: Given, known: dict[Given, None]) -> None:
    """As the newest; the oldest is forgotten where there are many."""
    known.pop(given, None)
    known[given] = None
    if len(known) > MOST_KNOWN:
        del known[next(iter(known))]
