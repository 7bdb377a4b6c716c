"""The tokens of an answer, on their way from a server to those who wait for them."""

import time
from collections.abc import Sequence

from runtime.engines import Observer
from runtime.engines.stream import Stream
from runtime.model.prompt import Wording


class Reader:
    """Reads the tokens of a stream, as they come, and tells observers how long each took."""

    def __init__(self, stream: Stream, wording: Wording, observers: Sequence[Observer], since: float) -> None:
        self.tokens: list[int] = []
        self._stream, self._ends, self._observers, self._since = stream, wording.end_tokens, observers, since
        self._told = [observer.prefilled for observer in observers]

    def read(self, tokens: Sequence[int]) -> None:
        """Several that come together have taken the same time each. End tokens are none of the answer."""
        now = time.monotonic()
        each = (now - self._since) / len(tokens)
        self._since = now
        for token in tokens:
            for tell in self._told:
                tell(each)
            self._told = [observer.stepped for observer in self._observers]
            if token not in self._ends:
                self.tokens.append(token)
                self._stream.push_token(len(self.tokens), token)
