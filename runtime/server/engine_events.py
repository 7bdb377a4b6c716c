"""Text as it grows, while tokens come in."""

import asyncio
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

from env.errors import KitError
from runtime import transcript
from runtime.engines import Decoded, Decoding, EngineError, Event, Utterance
from runtime.model.prompt import ASR_TEXT, UNFINISHED
from runtime.server.errors import DecodingError, StoppingError
from runtime.transcriber import Transcriber
from runtime.transcript import Segment


class Deltas:
    """Tells `tell` what is new of a transcript's text, segment after segment; joined, that is the text.

    There is one exception: where the model runs in circles, the repetition has been told before it is recognised and
    dropped.
    """

    def __init__(
        self,
        *,
        raw: Callable[[Sequence[int]], str],
        language: str | None,
        tell: Callable[[str], None],
        most_tokens: int | None = None,
    ) -> None:
        self._raw, self._language, self._tell = raw, language, tell
        self._before = ""  # the segments that are done
        self._told = ""
        self._left = sys.maxsize if most_tokens is None else most_tokens  # tokens of segments that are not done

    def grow(self, tokens: Sequence[int]) -> None:
        """The segment at hand has these tokens so far."""
        raw = self._raw(tokens[: self._left])
        if self._language or ASR_TEXT in raw:  # before, it is the language that grows
            text = transcript.read_open(raw.rstrip(UNFINISHED), forced=self._language)
            self._advance(transcript.joined((self._before, text)))

    def end(self, segment: Segment) -> None:
        """The segment at hand is done."""
        text = segment.hypothesis.text
        if len(segment.tokens) > self._left:
            text = transcript.read(self._raw(segment.tokens[: self._left]), forced=self._language).text
        self._left = max(0, self._left - len(segment.tokens))
        self._before = transcript.joined((self._before, text))
        self._advance(self._before)
        self._told = self._before  # also where a repetition was told: what follows shall be

    def _advance(self, text: str) -> None:
        if len(text) > len(self._told) and text.startswith(self._told):
            new, self._told = text[len(self._told) :], text
            self._tell(new)


@contextmanager
def submitted(transcriber: Transcriber, utterances: Sequence[Utterance]) -> Iterator[Sequence[Decoding]]:
    """Utterances in the engine; whatever ends the wait for them takes them out again."""
    decodings = transcriber.engine.submit(utterances)
    try:
        yield decodings
    except BaseException:
        for decoding in decodings:
            decoding.cancel()
        raise


def events_of(decoding: Decoding, *, tokens: bool) -> "asyncio.Queue[Event]":
    """What the engine tells about an utterance, brought onto the event loop; its end alone, unless tokens are asked."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Event] = asyncio.Queue()

    def pass_on(event: Event) -> None:
        if tokens or not isinstance(event, int):
            loop.call_soon_threadsafe(events.put_nowait, event)

    decoding.add_listener(pass_on)
    return events


async def await_end(events: "asyncio.Queue[Event]", deltas: Deltas | None, name: str) -> Decoded:
    """Wait for the end of an utterance of what errors call `name`; `deltas` hear its tokens.

    Raises EngineError, StoppingError where it was cancelled, and DecodingError.
    """
    tokens: list[int] = []
    while isinstance(event := await events.get(), int):
        tokens.append(event)
        if deltas and events.empty():
            deltas.grow(tokens)
    if isinstance(event, EngineError):
        raise copy.copy(event)  # each request's own: what is raised holds on to where it was raised
    if isinstance(event, CancelledError):
        raise StoppingError("the engine", "ends before this request is done")
    if isinstance(event, BaseException):
        words = str(event) if isinstance(event, KitError) else f"{type(event).__name__}: {event}"
        raise DecodingError(name, f"cannot be decoded: {words}") from event
    return event
