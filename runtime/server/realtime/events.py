"""The Realtime API's events: the client's are parsed and checked, the server's are sent one after the other."""

import asyncio
import base64
import json
import re
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from fastapi import WebSocket

from runtime.server import uploads
from runtime.server.errors import ApiError, describe, invalid, shorten

MAX_AUDIO_BYTES = 15 << 20  # bytes of audio in one event, as at OpenAI: 5.5 minutes at 24 kHz
# Required fields of each event, beside type and event_id.
REQUIRED_FIELDS: Mapping[str, Sequence[str]] = {
    "session.update": (),  # a session or, from vLLM's clients, a model
    "transcription_session.update": ("session",),  # the beta API's name
    "input_audio_buffer.append": ("audio",),
    "input_audio_buffer.commit": (),
    "input_audio_buffer.clear": (),
    "session.finish": (),  # Alibaba's: transcribe the rest, and end
    # Stop a response, of which there are none.
    "response.cancel": (),
    "output_audio_buffer.clear": (),
}
OPTIONAL_FIELDS: Mapping[str, Sequence[str]] = {
    "session.update": ("session", "model"),
    "input_audio_buffer.commit": ("final",),  # vLLM's; whatever it says, what came so far is committed
    "response.cancel": ("response_id",),
}
COMMON_FIELDS = ("type", "event_id")
MAX_ID_CHARS = 512  # as at OpenAI
# Bounds of a message without its audio, so that parsing it takes at most some 3 ms: characters (the longest context has
# 100,000 in escaped Chinese), commas (between keywords of that length), and objects and lists (an event has a dozen).
MAX_TEXT_CHARS, MAX_EVENT_COMMAS, MAX_CONTAINERS = 128 << 10, 5000, 1000
JSON_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
AUDIO_FIELD = re.compile(r'"audio"\s*:\s*"')
# Large audio is decoded in chunks of so many characters, a multiple of 4: the event loop waits some 3 ms for Python's
# lock, not for the whole.
AUDIO_CHUNK = 1 << 20
MAX_REASON_BYTES = 123  # bytes, of a WebSocket's close (RFC 6455, 5.5)


def parse_event(message: Mapping[str, Any]) -> dict[str, Any]:
    """Parse a message; everything in it but the audio is bounded. Raises ApiError, 400, for what is no JSON object."""
    text, audio = message.get("text"), ""
    if text is None:
        raise ApiError(400, "binary messages are not possible; send events as JSON text", code="invalid_event")
    try:
        if len(text) > MAX_TEXT_CHARS:
            text, audio = _without_audio(text)
        if len(text) > MAX_TEXT_CHARS:
            reason = f"the message holds more than {MAX_TEXT_CHARS} characters, which only its audio may"
            raise ApiError(400, reason, code="invalid_event")
        if _count_containers(text) > MAX_CONTAINERS and _count_containers(JSON_STRING.sub("", text)) > MAX_CONTAINERS:
            raise ValueError(f"it holds more than {MAX_CONTAINERS} objects and lists")
        event = uploads.parse_strict_json(text.encode(), max_commas=MAX_EVENT_COMMAS, allow_surrogates=True)
    except ValueError as error:
        raise ApiError(400, f"the message is no JSON as expected: {error}", code="invalid_event") from None
    if not isinstance(event, dict):
        raise ApiError(400, f"the message is {describe(event)}, expected a JSON object", code="invalid_event")
    if audio:
        event["audio"] = audio
    return event


def _count_containers(text: str) -> int:
    return text.count("{") + text.count("[")


def _without_audio(text: str) -> tuple[str, str]:
    """Return a message with its audio emptied, and the audio: parsing it as JSON would hold up others."""
    found = AUDIO_FIELD.search(text, 0, MAX_TEXT_CHARS)
    start = found.end() if found else -1
    end = text.find('"', start) if found else -1
    if end < 0:
        return text, ""
    return text[:start] + text[end:], _unescape(text[start:end])


def _unescape(text: str) -> str:
    """Decode the escapes of a JSON string: PHP writes / as \\/, .NET writes + as \\u002B. Raises ValueError for an
    invalid one."""
    if "\\" not in text:
        return text
    pieces, start = [], 0
    while start < len(text):
        end = start + AUDIO_CHUNK
        escape = text.rfind("\\", end - 5, end)  # of up to six characters, which must not be parted
        if escape >= 0 and end < len(text):
            end = escape
        pieces.append(json.loads(f'"{text[start:end]}"'))
        start = end
    return "".join(pieces)


def check_event(event: Mapping[str, Any]) -> None:
    """Raise ApiError, 400, for an unknown type, or fields other than the type's."""
    if not is_id(event.get("event_id", "")):
        raise invalid("event_id", f"expected text of at most {MAX_ID_CHARS} characters")
    kind = event.get("type")
    if not isinstance(kind, str) or kind not in REQUIRED_FIELDS:
        raise invalid(
            "type", f"{describe(kind)} is not possible; possible are {', '.join(REQUIRED_FIELDS)}", code="unknown_event"
        )
    possible = [*COMMON_FIELDS, *REQUIRED_FIELDS[kind], *OPTIONAL_FIELDS.get(kind, ())]
    for name in event:
        if name not in possible:
            reason = f"is not known in {kind}; possible are {', '.join(possible)}"
            raise invalid(shorten(name), reason, code="unknown_field")
    for name in REQUIRED_FIELDS[kind]:
        if name not in event:
            raise invalid(name, f"is missing in {kind}", code="missing_field")
    if kind == "session.update" and "session" not in event and "model" not in event:
        raise invalid("session", f"is missing in {kind}", code="missing_field")
    if not isinstance(event.get("model"), str | None):
        raise invalid("model", f"expected text; it is {describe(event['model'])}")


def decode_audio(value: Any, *, sample_bytes: int) -> bytes:
    """Decode the base64 of an append event. Raises ApiError, 400, if it is none, or not whole samples."""
    if not isinstance(value, str):
        raise invalid("audio", "expected text, in base64")
    if len(value) > MAX_AUDIO_BYTES * 4 / 3:
        reason = f"holds more than {MAX_AUDIO_BYTES >> 20} MiB; send it in several events"
        raise invalid("audio", reason, code="too_large")
    pieces = [value[start : start + AUDIO_CHUNK] for start in range(0, len(value), AUDIO_CHUNK)]
    try:
        if any("=" in piece for piece in pieces[:-1]):
            raise ValueError("padding before its end")
        data = b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except ValueError as error:
        raise invalid("audio", f"is no base64: {error}") from None
    if len(data) % sample_bytes:
        raise invalid("audio", f"holds {len(data)} bytes, expected 16-bit samples, an even number")
    return data


class EventSender:
    """Sends events, one at a time: it waits until the client has room for each, and stores none. Raises TimeoutError
    when the client has read nothing for `timeout` seconds."""

    def __init__(self, socket: WebSocket, *, timeout: float) -> None:
        self._socket, self._timeout = socket, timeout

    async def send(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "event_id": new_id("event"), **fields}
        text = json.dumps(event)  # in ASCII: a client's text, quoted in errors, may hold lone surrogates
        await self._with_timeout(self._socket.send_text(text))

    async def error(self, failure: ApiError, event_id: object = None) -> None:
        """Send an error, with the id that the client gave to the event at fault."""
        fields = failure.body["error"]
        await self.send("error", error={**fields, "event_id": event_id if is_id(event_id) else None})

    async def close(self, code: int, reason: str) -> None:
        """Close the WebSocket; the reason is cut to MAX_REASON_BYTES."""
        short = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        await self._with_timeout(self._socket.close(code, short))

    async def _with_timeout(self, sending: Coroutine[Any, Any, None]) -> None:
        """Unlike `asyncio.wait_for` before Python 3.12, this never mistakes the session's cancellation for its own."""
        task = asyncio.ensure_future(sending)
        try:
            await asyncio.wait({task}, timeout=self._timeout)
        finally:
            task.cancel()
        if not task.done():
            raise asyncio.TimeoutError
        try:
            task.result()
        finally:
            del task  # which has what it raises, which has this frame


def is_id(value: object) -> bool:
    """Whether a client may use that as an event's id."""
    return isinstance(value, str) and len(value) <= MAX_ID_CHARS


def new_id(kind: str) -> str:
    """An id that is unique for all practical purposes: the kind, and 96 random bits."""
    return f"{kind}_{uuid.uuid4().hex[:24]}"
