"""POST /v1/chat/completions with one piece of audio, as users of vLLM send it; the answer is the plain text."""

import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from runtime import transcriber
from runtime.server import schema
from runtime.server.answering import data_of, refused, streamed, whole
from runtime.server.errors import FullError, from_kit
from runtime.server.life import life_of
from runtime.server.models import check_model, names
from runtime.server.uploads import Upload, from_base64, in_memory, json_body
from runtime.transcript import Transcript

router = APIRouter(prefix="/v1/chat", tags=["transcription"])

POSSIBLE = ("model", "messages", "stream", "temperature")
PARTS = ("input_audio", "audio_url")
FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "aac", "m4a", "mp4", "webm")
NAMES = {"audio": "messages", "language": "messages", "prompt": "messages"}


@dataclass(frozen=True)
class Ask:
    """What a client wants."""

    source: Upload | str
    model: str | None
    context: str
    stream: bool


@router.post("/completions", openapi_extra=schema.CHAT)
async def complete(request: Request) -> Response:
    """Transcribe the audio in a chat message."""
    service = life_of(request).service
    try:
        service.refuse_if_full()
    except FullError as error:
        raise from_kit(error, NAMES) from error
    ask = await json_body(request, service, partial(read, most_in_memory=in_memory(request)))
    try:
        check_model(ask.model, service.settings)
        wanted = transcriber.Request(ask.source, context=ask.context)
        answer = _Answer(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), names(service.settings)[0])
        if ask.stream:
            return await streamed(
                request, service, wanted, fields=NAMES, on_text=answer.chunk, on_end=lambda heard: answer.end(heard)
            )
        return JSONResponse(answer.whole(await whole(request, service, wanted, fields=NAMES)))
    finally:
        if isinstance(ask.source, Upload):
            ask.source.close()


def read(body: Any, *, most_in_memory: int) -> Ask:
    """What the body asks for, of whose audio so many bytes stay in memory.

    Raises ApiError, 400, for anything that cannot be honoured.
    """
    if not isinstance(body, dict):
        raise refused("body", "expected a JSON object")
    for name in body:
        if name not in POSSIBLE:
            raise refused(name, f"is not known here; possible are {', '.join(POSSIBLE)}", code="unknown_field")
    model, stream, temperature = body.get("model"), body.get("stream", False), body.get("temperature", 0)
    if model is not None and not isinstance(model, str):
        raise refused("model", "expected a name")
    if not isinstance(stream, bool):
        raise refused("stream", f"{stream!r} is not possible; possible are true and false")
    if isinstance(temperature, bool) or temperature != 0:
        raise refused("temperature", f"{temperature!r} is not possible; only 0 is: decoding is greedy")
    contexts: list[str] = []
    sources: list[dict[str, Any]] = []
    for role, content in _messages(body.get("messages")):
        if role == "system":
            contexts.append(_context(content))
        else:
            sources += _parts(content)
    if len(contexts) > 1 or len(sources) != 1:
        raise refused(
            "messages", f"hold {len(sources)} pieces of audio and {len(contexts)} contexts, expected 1 and 0-1"
        )
    return Ask(_source(sources[0], most_in_memory), model, "".join(contexts), stream)


def _messages(messages: Any) -> list[tuple[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise refused("messages", "expected a list with a message of the user", code="missing_field")
    found = []
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise refused("messages", "expected objects with role and content")
        if message["role"] not in ("system", "user"):
            raise refused("messages", f"the role {message['role']!r} is not possible; possible are system and user")
        found.append((message["role"], message["content"]))
    return found


def _context(content: Any) -> str:
    """The text of a system message, a string or parts of text."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts
    ):
        raise refused("messages", "the system's content is the context, expected text")
    return "".join(part["text"] for part in parts)


def _parts(content: Any) -> list[dict[str, Any]]:
    """The audio of a user's message."""
    if not isinstance(content, list):
        raise refused("messages", "the user's content: expected a list of parts, input_audio or audio_url")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in PARTS:
            advice = "; text for the model belongs into a system message" if kind == "text" else ""
            raise refused(
                "messages", f"a part of type {kind!r} is not possible; possible are {', '.join(PARTS)}{advice}"
            )
        if not isinstance(part.get(kind), dict) or set(part) != {"type", kind}:
            raise refused("messages", f"expected an object {kind} beside type, and nothing else")
    return content


def _source(part: dict[str, Any], most_in_memory: int) -> Upload | str:
    content = part[part["type"]]
    key, others = ("data", {"format"}) if part["type"] == "input_audio" else ("url", set())
    if not isinstance(content.get(key), str) or set(content) - {key} - others:
        raise refused("messages", f"{part['type']}: expected {' and '.join([key, *others])}, as text")
    kind = content.get("format", FORMATS[0])
    if kind not in FORMATS:
        raise refused("messages", f"the format {kind!r} is not possible; possible are {', '.join(FORMATS)}")
    if key == "data":
        return from_base64(content[key], name=f"input_audio.{kind}", param="messages", most_in_memory=most_in_memory)
    head, comma, data = content[key].partition(",")
    if comma and head.lower().startswith("data:") and head.lower().endswith(";base64"):
        return from_base64(data, name="audio_url", param="messages", most_in_memory=most_in_memory)
    if not head.lower().startswith(("http://", "https://")):
        raise refused("messages", "audio_url: expected an http, https or base64 data URL")
    return str(content[key])


@dataclass(frozen=True)
class _Answer:
    """A completion, whole or in chunks."""

    number: str
    created: int
    model: str

    def whole(self, heard: Transcript) -> dict[str, Any]:
        """All of it."""
        message = {"role": "assistant", "content": heard.text}
        choice = {"index": 0, "message": message, "finish_reason": _reason(heard)}
        return {**self._frame("chat.completion"), "choices": [choice]}

    def chunk(self, text: str) -> str:
        """A bit of text."""
        return self._chunk({"role": "assistant", "content": text}, None)

    def end(self, heard: Transcript) -> list[str]:
        """The last chunk, and OpenAI's mark of the end."""
        return [self._chunk({}, _reason(heard)), "[DONE]"]

    def _chunk(self, delta: dict[str, str], reason: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return data_of({**self._frame("chat.completion.chunk"), "choices": [choice]})

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.number, "object": kind, "created": self.created, "model": self.model}


def _reason(heard: Transcript) -> str:
    return "length" if heard.truncated else "stop"
