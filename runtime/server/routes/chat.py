"""POST /v1/chat/completions with one piece of audio, as clients of vLLM send it; the answer is the plain text."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from runtime import languages, transcriber
from runtime.server import openapi
from runtime.server.errors import MAX_SHOWN_CHARS, FullError, describe, invalid, shorten, to_api_error
from runtime.server.routes.chat_body import AUDIO_KEYS, base64_start
from runtime.server.routes.info import check_model, names
from runtime.server.state import state_of
from runtime.server.streaming import no_effect, stream_transcript, to_json, whole_transcript, with_warnings
from runtime.server.uploads import DECODED_KEY, Open, Upload, from_base64, read_json, spool_opener
from runtime.transcript import Transcript

router = APIRouter(prefix="/v1/chat", tags=["transcription"])

SUPPORTED_FIELDS = (
    *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "asr_options"),
    *("n", "modalities", "response_format", "temperature", "audio"),
)
RAW_FORMATS = ("pcm", "pcm16", "g711_ulaw", "g711_alaw", "raw")  # samples of unknown rate
CONTEXT_ROLES = ("system", "developer")
CHAT_ERROR_FIELDS = {"audio": "messages", "language": "asr_options.language", "prompt": "messages"}


@dataclass(frozen=True)
class ChatRequest:
    """A parsed request; `warnings` name what in it has no effect."""

    source: Upload | str
    model: str | None
    language: str | None
    context: str
    max_tokens: int | None
    stream: bool
    with_usage: bool
    warnings: tuple[str, ...]


@router.post("/completions", openapi_extra=openapi.CHAT_REQUEST)
async def complete(request: Request) -> Response:
    """Transcribe the audio in a chat message."""
    service = state_of(request).service
    try:
        service.check_capacity()
    except FullError as error:
        raise to_api_error(error, CHAT_ERROR_FIELDS) from error
    parsed = await read_json(request, service, partial(parse_body, open_file=spool_opener(request)))
    try:
        warnings = (*check_model(parsed.model, service.settings), *parsed.warnings)
        transcription = transcriber.Request(
            parsed.source, parsed.language, parsed.context, max_tokens=parsed.max_tokens
        )
        response = _ChatResponse(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), names(service.settings)[0], warnings)
        if parsed.stream:
            stream = await stream_transcript(
                request,
                service,
                transcription,
                fields=CHAT_ERROR_FIELDS,
                on_text=response.chunk,
                on_end=lambda transcript: response.end(transcript, with_usage=parsed.with_usage),
            )
            return with_warnings(stream, warnings)
        transcript = await whole_transcript(request, service, transcription, fields=CHAT_ERROR_FIELDS)
        return with_warnings(JSONResponse(response.completion(transcript)), warnings)
    finally:
        if isinstance(parsed.source, Upload):
            parsed.source.close()


def parse_body(body: Any, *, open_file: Open) -> ChatRequest:
    """Parse a request's body; `open_file` opens the file for its audio. A null field counts as absent.

    Raises ApiError, 400, for an unknown field, and for one that asks for another result.
    """
    if not isinstance(body, dict):
        raise invalid("body", "expected a JSON object")
    fields = {name: value for name, value in body.items() if value is not None}
    warnings = []
    for name in fields:
        if name not in SUPPORTED_FIELDS and name not in openapi.IGNORED_CHAT_FIELDS:
            raise invalid(name, f"is not known here; possible are {', '.join(SUPPORTED_FIELDS)}", code="unknown_field")
        if name not in SUPPORTED_FIELDS and fields[name] not in ([], {}, False):
            warnings.append(no_effect(name, openapi.IGNORED_CHAT_FIELDS[name]))
    model, stream = fields.get("model") or None, fields.get("stream", False)
    if model is not None and not isinstance(model, str):
        raise invalid("model", "expected a name")
    if not isinstance(stream, bool):
        raise invalid("stream", f"{stream!r} is not possible; possible are true and false")
    if _temperature(fields.get("temperature", 0)):
        warnings.append(no_effect("temperature", openapi.GREEDY_REASON))
    _check_result(fields)
    options = _object(fields, "stream_options")
    with_usage = options.get("include_usage") or False
    if not isinstance(with_usage, bool):
        raise invalid(
            "stream_options.include_usage", f"{describe(with_usage)} is not possible; possible are true and false"
        )
    others = [name for name, value in options.items() if name != "include_usage" and value]
    warnings += [no_effect(f"stream_options.{shorten(name)}", "the usage comes at the end") for name in others]
    asr_options, unused = _asr_options(_object(fields, "asr_options"))
    source, context, ignored = _content(fields.get("messages"))
    max_tokens = _max_tokens(fields)
    return ChatRequest(
        source=_source(source, open_file),  # last of what may be refused: it is a file to be closed
        model=model,
        language=asr_options.get("language"),
        context="\n".join(part for part in (context, asr_options.get("context", "")) if part),
        max_tokens=max_tokens,
        stream=stream,
        with_usage=with_usage,
        warnings=(*warnings, *unused, *ignored),
    )


def _check_result(fields: Mapping[str, Any]) -> None:
    """Raise ApiError for fields that ask for anything but one text."""
    if fields.get("n", 1) != 1 or isinstance(fields.get("n"), bool):
        raise invalid("n", f"{describe(fields['n'])} is not possible; possible is 1: decoding is greedy")
    if fields.get("modalities", ["text"]) != ["text"] or "audio" in fields:
        raise invalid("audio" if "audio" in fields else "modalities", "the answer is text, nothing is spoken")
    form = _object(fields, "response_format").get("type", "text")
    if form != "text":
        raise invalid("response_format", f"{describe(form)} is not possible; possible is text")


def _temperature(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= openapi.MAX_TEMPERATURE:
        raise invalid(
            "temperature", f"{describe(value)} is not possible; possible are 0 to {openapi.MAX_TEMPERATURE:g}"
        )
    return float(value)


def _max_tokens(fields: Mapping[str, Any]) -> int | None:
    """The smaller of OpenAI's two names for this limit."""
    found = []
    for name in ("max_tokens", "max_completion_tokens"):
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise invalid(name, f"{describe(value)} is not possible; expected a number of tokens, 1 or more")
        found.append(value)
    return min(found, default=None)


def _asr_options(options: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The supported ones of Alibaba's `asr_options`, and warnings about the others: the model decides by itself how it
    writes numbers, and detects the language."""
    found, warnings = {}, []
    for name, value in options.items():
        field = f"asr_options.{name}"
        if name in ("language", "context"):
            if not isinstance(value, str | None):
                raise invalid(field, f"{describe(value)} is not possible; expected text")
            if value:
                found[name] = value
        elif name in ("enable_itn", "enable_lid"):
            if value:
                warnings.append(no_effect(field, "the model itself decides it"))
        else:
            possible = "language, context, enable_itn, enable_lid"
            raise invalid(field[:MAX_SHOWN_CHARS], f"is not known here; possible are {possible}", code="unknown_field")
    return found, warnings


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name, {})
    if not isinstance(value, dict):
        raise invalid(name, f"{describe(value)} is not possible; expected an object")
    return value


def _content(messages: Any) -> tuple[dict[str, Any], str, list[str]]:
    """The piece of audio, the context, and warnings. In the model's chat template, the system messages are the context,
    and no other text is used."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "expected a list with a message of the user", code="missing_field")
    contexts: list[str] = []
    sources: list[dict[str, Any]] = []
    unread: dict[str, None] = {}
    for message in messages:
        role, content = _message(message)
        if role in CONTEXT_ROLES:
            contexts.append(_context(content))
            continue
        for part in _parts(role, content):
            if part["type"] in AUDIO_KEYS:
                sources.append(part)
            else:
                warning = f"messages: the model does not read the text of {role} messages; a context is the system's"
                unread[warning] = None
    if len(sources) != 1:
        raise invalid("messages", f"hold {len(sources)} pieces of audio, expected 1, as input_audio or audio_url")
    return sources[0], "".join(contexts), list(unread)


def _message(message: Any) -> tuple[str, Any]:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise invalid("messages", "expected objects with role and content")
    role = message["role"]
    if role not in (*CONTEXT_ROLES, "user", "assistant"):
        raise invalid("messages", f"the role {describe(role)} is not possible; possible are system, user and assistant")
    return role, message["content"]


def _context(content: Any) -> str:
    """The text of a system message, which is a string or text parts."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
        for part in parts
    ):
        raise invalid("messages", "the system's content is the context, expected text")
    return "".join(part["text"] for part in parts)


def _parts(role: str, content: Any) -> list[dict[str, Any]]:
    """The audio and text parts of a message, each checked to have its content."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise invalid("messages", f"the content of {role} messages: expected text, or a list of parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in (*AUDIO_KEYS, "text"):
            raise invalid(
                "messages", f"a part of type {describe(kind)} is not possible; possible are {', '.join(AUDIO_KEYS)}"
            )
        if not isinstance(part.get(kind), str if kind == "text" else dict):
            raise invalid("messages", f"expected {kind} beside type")
    return [part for part in content if part["type"] in AUDIO_KEYS or part["text"]]


def _source(part: dict[str, Any], open_file: Open) -> Upload | str:
    """The audio: base64, a data URL or a URL, any of which clients put into either kind of part."""
    kind = part["type"]
    content, key = part[kind], AUDIO_KEYS[kind]
    if not isinstance(content.get(key), str) or not content[key]:
        raise invalid("messages", f"{kind}: expected {key}, as text")
    form = content.get("format") or "audio"
    if not isinstance(form, str) or form in RAW_FORMATS or len(form) > MAX_SHOWN_CHARS:
        raise invalid("messages", f"the format {describe(form)} is not possible; send a file, such as wav")
    text: str = content[key]
    if text[:8].lower().startswith(("http://", "https://")):
        return text
    start = base64_start(kind, text)
    if start is None:
        expected = "a data URL in base64" if text[:5].lower() == "data:" else "an http, https or base64 data URL"
        raise invalid("messages", f"{kind}: expected {expected}")
    name = f"{kind}.{form}" if kind == "input_audio" else kind
    decoded = part.get(DECODED_KEY)
    if isinstance(decoded, Upload):
        return replace(decoded, name=name)
    return from_base64(text[start:], name=name, param="messages", open_file=open_file)


@dataclass(frozen=True)
class _ChatResponse:
    """Formats a completion, whole or in chunks."""

    id: str
    created: int
    model: str
    warnings: tuple[str, ...]

    def completion(self, transcript: Transcript) -> dict[str, Any]:
        """The whole completion. The languages stand beside the choices, as at Alibaba's service: Vercel's AI SDK
        accepts no annotations of a message but links."""
        message = {"role": "assistant", "content": transcript.text}
        choice = {"index": 0, "message": message, "finish_reason": _finish_reason(transcript)}
        spoken = [{"code": code} for name in transcript.languages if (code := languages.code(name))]
        rest = {"usage": _usage(transcript), "languages": spoken, **self._warnings_field()}
        return {**self._frame("chat.completion"), "choices": [choice], **rest}

    def chunk(self, text: str) -> str:
        """A chunk with a piece of text."""
        return self._chunk({"role": "assistant", "content": text}, None)

    def end(self, transcript: Transcript, *, with_usage: bool) -> list[str]:
        """The last chunks, and OpenAI's end mark."""
        usage = to_json({**self._frame("chat.completion.chunk"), "choices": [], "usage": _usage(transcript)})
        last = self._chunk({}, _finish_reason(transcript), **self._warnings_field())
        return [last, *([usage] if with_usage else []), "[DONE]"]

    def _chunk(self, delta: dict[str, str], reason: str | None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return to_json({**self._frame("chat.completion.chunk"), "choices": [choice], **more})

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _warnings_field(self) -> dict[str, Any]:
        return {"warnings": self.warnings} if self.warnings else {}


def _usage(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's usage, with the seconds of audio, as at Alibaba's service."""
    return {
        "prompt_tokens": transcript.prompt_tokens,
        "completion_tokens": transcript.tokens,
        "total_tokens": transcript.prompt_tokens + transcript.tokens,
        "prompt_tokens_details": {"audio_tokens": transcript.audio_tokens},
        "seconds": round(transcript.seconds, 3),
    }


def _finish_reason(transcript: Transcript) -> str:
    return "length" if transcript.truncated else "stop"
