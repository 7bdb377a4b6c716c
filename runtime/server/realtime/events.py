"""What goes over the WebSocket: client's events, read and checked, and the server's, sent one after the other."""

import asyncio
import base64
import json
import re
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from fastapi import WebSocket

from runtime.server import uploads
from runtime.server.errors import ApiError, invalid, shortened, shown

MOST_AUDIO = 15 << 20  # bytes of audio in one event, as at OpenAI: 5.5 minutes at 24 kHz
# What each event brings beside its type and event_id; all of it must be there.
EVENTS: Mapping[str, Sequence[str]] = {
    "session.update": (),  # a session or, from vLLM's clients, a model
    "transcription_session.update": ("session",),  # the beta API's name
    "input_audio_buffer.append": ("audio",),
    "input_audio_buffer.commit": (),
    "input_audio_buffer.clear": (),
    "session.finish": (),  # Alibaba's: tell all that was said, and end
    # Stop an answer, and what is heard of it: there is none, so it is done.
    "response.cancel": (),
    "output_audio_buffer.clear": (),
}
OPTIONAL: Mapping[str, Sequence[str]] = {
    "session.update": ("session", "model"),
    "input_audio_buffer.commit": ("final",),  # vLLM's; whatever it says, what came so far is committed
    "response.cancel": ("response_id",),
}
ALWAYS = ("type", "event_id")
LONGEST_ID = 512  # characters, as at OpenAI
# Of a message beside its audio, so that none keeps others waiting for longer than some 3 ms: characters, of which the
# longest context in escaped Chinese has 100,000; commas, which keywords of that length have half as many of; and
# objects and lists, of which an event has a dozen.
MOST_TEXT, MOST_COMMAS, MOST_PARTS = 128 << 10, 5000, 1000
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
AUDIO = re.compile(r'"audio"\s*:\s*"')
# Characters, a multiple of 4: what large audio is read by. Whoever waits for Python's lock, as the event loop does,
# waits for one of them, some 3 ms.
PIECE = 1 << 20
LONGEST_REASON = 123  # bytes, of a WebSocket's close (RFC 6455, 5.5)


def read(message: Mapping[str, Any]) -> dict[str, Any]:
    """The event in a message; all of it but the audio is bounded. Raises ApiError, 400, for what is none that the
    server knows."""
    text, audio = message.get("text"), ""
    if text is None:
        raise ApiError(400, "binary messages are not possible; send events as JSON text", code="invalid_event")
    try:
        if len(text) > MOST_TEXT:
            text, audio = _parted(text)
        if len(text) > MOST_TEXT:
            words = f"the message holds more than {MOST_TEXT} characters, which only its audio may"
            raise ApiError(400, words, code="invalid_event")
        if _parts(text) > MOST_PARTS and _parts(STRING.sub("", text)) > MOST_PARTS:
            raise ValueError(f"it holds more than {MOST_PARTS} objects and lists")
        event = uploads.parse_strict_json(text.encode(), most_commas=MOST_COMMAS, halves=True)
    except ValueError as error:
        raise ApiError(400, f"the message is no JSON as expected: {error}", code="invalid_event") from None
    if not isinstance(event, dict):
        raise ApiError(400, f"the message is {shown(event)}, expected a JSON object", code="invalid_event")
    if audio:
        event["audio"] = audio
    return event


def _parts(text: str) -> int:
    return text.count("{") + text.count("[")


def _parted(text: str) -> tuple[str, str]:
    """A message with nothing in its audio, and the audio. The parser would hold up others for as long as it takes."""
    found = AUDIO.search(text, 0, MOST_TEXT)
    start = found.end() if found else -1
    end = text.find('"', start) if found else -1
    if end < 0:
        return text, ""
    return text[:start] + text[end:], _unescaped(text[start:end])


def _unescaped(text: str) -> str:
    """What stands in a JSON string: PHP writes / as \\/, .NET writes + as \\u002B. Raises ValueError for no escape."""
    if "\\" not in text:
        return text
    pieces, start = [], 0
    while start < len(text):
        end = start + PIECE
        escape = text.rfind("\\", end - 5, end)  # of up to six characters, which must not be parted
        if escape >= 0 and end < len(text):
            end = escape
        pieces.append(json.loads(f'"{text[start:end]}"'))
        start = end
    return "".join(pieces)


def check(event: Mapping[str, Any]) -> None:
    """Raises ApiError, 400, for an event of an unknown type, or with other fields than its type has."""
    if not is_id(event.get("event_id", "")):
        raise invalid("event_id", f"expected text of at most {LONGEST_ID} characters")
    kind = event.get("type")
    if not isinstance(kind, str) or kind not in EVENTS:
        raise invalid("type", f"{shown(kind)} is not possible; possible are {', '.join(EVENTS)}", code="unknown_event")
    possible = [*ALWAYS, *EVENTS[kind], *OPTIONAL.get(kind, ())]
    for name in event:
        if name not in possible:
            words = f"is not known in {kind}; possible are {', '.join(possible)}"
            raise invalid(shortened(name), words, code="unknown_field")
    for name in EVENTS[kind]:
        if name not in event:
            raise invalid(name, f"is missing in {kind}", code="missing_field")
    if kind == "session.update" and "session" not in event and "model" not in event:
        raise invalid("session", f"is missing in {kind}", code="missing_field")
    if not isinstance(event.get("model"), str | None):
        raise invalid("model", f"expected text; it is {shown(event['model'])}")


def audio(value: Any, *, sample_bytes: int) -> bytes:
    """The audio of an append event. Raises ApiError, 400, for what is no whole samples in base64."""
    if not isinstance(value, str):
        raise invalid("audio", "expected text, in base64")
    if len(value) > MOST_AUDIO * 4 / 3:
        raise invalid("audio", f"holds more than {MOST_AUDIO >> 20} MiB; send it in several events", code="too_large")
    pieces = [value[start : start + PIECE] for start in range(0, len(value), PIECE)]
    try:
        if any("=" in piece for piece in pieces[:-1]):
            raise ValueError("padding before its end")
        data = b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except ValueError as error:
        raise invalid("audio", f"is no base64: {error}") from None
    if len(data) % sample_bytes:
        raise invalid("audio", f"holds {len(data)} bytes, expected 16-bit samples, an even number")
    return data


class Outgoing:
    """Sends events. It waits until the client has room for each, so none are stored; a client that reads nothing for
    `patience` seconds is given up with TimeoutError."""

    def __init__(self, socket: WebSocket, *, patience: float) -> None:
        self._socket, self._patience = socket, patience

    async def send(self, kind: str, **fields: Any) -> None:
        """An event with these fields."""
        event = {"type": kind, "event_id": new_id("event"), **fields}
        text = json.dumps(event)  # in ASCII: what a client said, which is repeated in errors, need not be good Unicode
        await self._in_time(self._socket.send_text(text))

    async def error(self, failure: ApiError, cause: object = None) -> None:
        """What went wrong, with the id that the client gave to the event at fault."""
        fields = failure.body["error"]
        await self.send("error", error={**fields, "event_id": cause if is_id(cause) else None})

    async def close(self, code: int, reason: str) -> None:
        """The last words."""
        short = reason.encode()[:LONGEST_REASON].decode(errors="ignore")
        await self._in_time(self._socket.close(code, short))

    async def _in_time(self, sending: Coroutine[Any, Any, None]) -> None:
        """Unlike `asyncio.wait_for` before Python 3.12, it never takes a session's being cancelled for itself."""
        task = asyncio.ensure_future(sending)
        try:
            await asyncio.wait({task}, timeout=self._patience)
        finally:
            task.cancel()
        if not task.done():
            raise asyncio.TimeoutError
        try:
            task.result()
        finally:
            del task  # which has what it raises, which has this frame


def is_id(value: object) -> bool:
    """Whether a client may give that as an event's id."""
    return isinstance(value, str) and len(value) <= LONGEST_ID


def new_id(kind: str) -> str:
    """An id that nothing else has."""
    return f"{kind}_{uuid.uuid4().hex[:24]}"
