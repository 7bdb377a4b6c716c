"""What engines tell in their threads, awaited on the event loop."""

import asyncio
import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

from env.errors import KitError
from runtime.engines import Decoded, Decoding, EngineError, Event, Utterance
from runtime.server.deltas import Deltas
from runtime.server.errors import DecodingError, StoppingError
from runtime.transcriber import Transcriber


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
