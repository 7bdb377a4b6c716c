"""The engine's events on the event loop: awaiting results, and the text deltas of a growing transcript."""

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


class TextDeltas:
    """Calls `on_text` with each new piece of a transcript's text, segment after segment; joined, the pieces are the
    text.

    With one exception: a repetition in which the model is caught has already been sent when it is recognised and
    dropped.
    """

    def __init__(
        self,
        *,
        raw: Callable[[Sequence[int]], str],
        language: str | None,
        on_text: Callable[[str], None],
        max_tokens: int | None = None,
    ) -> None:
        self._raw, self._language, self._on_text = raw, language, on_text
        self._finished_text = ""  # of the finished segments
        self._emitted = ""
        self._tokens_left = sys.maxsize if max_tokens is None else max_tokens  # for segments that are not finished

    def update(self, tokens: Sequence[int]) -> None:
        """Take all tokens of the current segment so far."""
        raw = self._raw(tokens[: self._tokens_left])
        if self._language or ASR_TEXT in raw:  # before that marker, the language is decoded
            text = transcript.parse_partial(raw.rstrip(UNFINISHED), forced=self._language)
            self._emit(transcript.join_texts((self._finished_text, text)))

    def finish_segment(self, segment: Segment) -> None:
        """Take the result of the current segment, and go on to the next."""
        text = segment.hypothesis.text
        if len(segment.tokens) > self._tokens_left:
            text = transcript.parse(self._raw(segment.tokens[: self._tokens_left]), forced=self._language).text
        self._tokens_left = max(0, self._tokens_left - len(segment.tokens))
        self._finished_text = transcript.join_texts((self._finished_text, text))
        self._emit(self._finished_text)
        self._emitted = self._finished_text  # even if a repetition was sent: what follows must be

    def _emit(self, text: str) -> None:
        if len(text) > len(self._emitted) and text.startswith(self._emitted):
            new, self._emitted = text[len(self._emitted) :], text
            self._on_text(new)


@contextmanager
def submitted(transcriber: Transcriber, utterances: Sequence[Utterance]) -> Iterator[Sequence[Decoding]]:
    """Submit utterances to the engine, and cancel them if the block raises anything, cancellation included."""
    decodings = transcriber.engine.submit(utterances)
    try:
        yield decodings
    except BaseException:
        for decoding in decodings:
            decoding.cancel()
        raise


def event_queue(decoding: Decoding, *, tokens: bool) -> "asyncio.Queue[Event]":
    """Forward an utterance's events to a queue on the running event loop; without `tokens`, only the last one."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Event] = asyncio.Queue()

    def forward(event: Event) -> None:
        if tokens or not isinstance(event, int):
            loop.call_soon_threadsafe(events.put_nowait, event)

    decoding.add_listener(forward)
    return events


async def await_result(events: "asyncio.Queue[Event]", text_deltas: TextDeltas | None, name: str) -> Decoded:
    """Wait for an utterance's result, feeding `text_deltas` with its tokens. Errors call the audio `name`.

    Raises EngineError, DecodingError, and StoppingError if the utterance was cancelled.
    """
    tokens: list[int] = []
    while isinstance(event := await events.get(), int):
        tokens.append(event)
        if text_deltas and events.empty():
            text_deltas.update(tokens)
    if isinstance(event, EngineError):
        raise copy.copy(event)  # each request its own: a raised exception holds on to frames
    if isinstance(event, CancelledError):
        raise StoppingError("the engine", "ends before this request is done")
    if isinstance(event, BaseException):
        message = str(event) if isinstance(event, KitError) else f"{type(event).__name__}: {event}"
        raise DecodingError(name, f"cannot be decoded: {message}") from event
    return event
