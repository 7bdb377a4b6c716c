"""POST /v1/chat/completions with one piece of audio, as users of vLLM send it; the answer is the plain text."""

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
from runtime.server.errors import MAX_SHOWN_CHARS, FullError, from_kit, invalid, shortened, shown
from runtime.server.routes.chat_body import KEYS, base64_start
from runtime.server.routes.info import check_model, names
from runtime.server.state import life_of
from runtime.server.streaming import data_of, no_effect, streamed, whole, with_warnings
from runtime.server.uploads import DECODED, Open, Upload, from_base64, json_body, opener
from runtime.transcript import Transcript

router = APIRouter(prefix="/v1/chat", tags=["transcription"])

HONOURED = (
    *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "asr_options"),
    *("n", "modalities", "response_format", "temperature", "audio"),
)
RAW = ("pcm", "pcm16", "g711_ulaw", "g711_alaw", "raw")  # samples of unknown rate
CONTEXT_ROLES = ("system", "developer")
NAMES = {"audio": "messages", "language": "asr_options.language", "prompt": "messages"}


@dataclass(frozen=True)
class ChatRequest:
    """What a client wants; `warnings` say what of it has no effect."""

    source: Upload | str
    model: str | None
    language: str | None
    context: str
    max_tokens: int | None
    stream: bool
    with_usage: bool
    warnings: tuple[str, ...]


@router.post("/completions", openapi_extra=openapi.CHAT)
async def complete(request: Request) -> Response:
    """Transcribe the audio in a chat message."""
    service = life_of(request).service
    try:
        service.refuse_if_full()
    except FullError as error:
        raise from_kit(error, NAMES) from error
    ask = await json_body(request, service, partial(read, open_file=opener(request)))
    try:
        warnings = (*check_model(ask.model, service.settings), *ask.warnings)
        wanted = transcriber.Request(ask.source, ask.language, ask.context, max_tokens=ask.max_tokens)
        answer = _Answer(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), names(service.settings)[0], warnings)
        if ask.stream:
            stream = await streamed(
                request,
                service,
                wanted,
                fields=NAMES,
                on_text=answer.chunk,
                on_end=lambda heard: answer.end(heard, with_usage=ask.with_usage),
            )
            return with_warnings(stream, warnings)
        heard = await whole(request, service, wanted, fields=NAMES)
        return with_warnings(JSONResponse(answer.whole(heard)), warnings)
    finally:
        if isinstance(ask.source, Upload):
            ask.source.close()


def read(body: Any, *, open_file: Open) -> ChatRequest:
    """What the body asks for; `open_file` makes the file of its audio. A field that is null is as good as none.

    Raises ApiError, 400, for what would change the result and cannot be honoured, and for what is not known.
    """
    if not isinstance(body, dict):
        raise invalid("body", "expected a JSON object")
    given = {name: value for name, value in body.items() if value is not None}
    warnings = []
    for name in given:
        if name not in HONOURED and name not in openapi.IGNORED_CHAT_FIELDS:
            raise invalid(name, f"is not known here; possible are {', '.join(HONOURED)}", code="unknown_field")
        if name not in HONOURED and given[name] not in ([], {}, False):
            warnings.append(no_effect(name, openapi.IGNORED_CHAT_FIELDS[name]))
    model, stream = given.get("model") or None, given.get("stream", False)
    if model is not None and not isinstance(model, str):
        raise invalid("model", "expected a name")
    if not isinstance(stream, bool):
        raise invalid("stream", f"{stream!r} is not possible; possible are true and false")
    if _temperature(given.get("temperature", 0)):
        warnings.append(no_effect("temperature", openapi.GREEDY_REASON))
    _check_result(given)
    options = _object(given, "stream_options")
    with_usage = options.get("include_usage") or False
    if not isinstance(with_usage, bool):
        raise invalid(
            "stream_options.include_usage", f"{shown(with_usage)} is not possible; possible are true and false"
        )
    others = [name for name, value in options.items() if name != "include_usage" and value]
    warnings += [no_effect(f"stream_options.{shortened(name)}", "the usage comes at the end") for name in others]
    asr, unused = _asr_options(_object(given, "asr_options"))
    source, context, ignored = _content(given.get("messages"))
    most_tokens = _most_tokens(given)
    return ChatRequest(
        source=_source(source, open_file),  # last of what may be refused: it is a file to be closed
        model=model,
        language=asr.get("language"),
        context="\n".join(part for part in (context, asr.get("context", "")) if part),
        max_tokens=most_tokens,
        stream=stream,
        with_usage=with_usage,
        warnings=(*warnings, *unused, *ignored),
    )


def _check_result(given: Mapping[str, Any]) -> None:
    """Raises ApiError for what would give another result than one text."""
    if given.get("n", 1) != 1 or isinstance(given.get("n"), bool):
        raise invalid("n", f"{shown(given['n'])} is not possible; possible is 1: decoding is greedy")
    if given.get("modalities", ["text"]) != ["text"] or "audio" in given:
        raise invalid("audio" if "audio" in given else "modalities", "the answer is text, nothing is spoken")
    form = _object(given, "response_format").get("type", "text")
    if form != "text":
        raise invalid("response_format", f"{shown(form)} is not possible; possible is text")


def _temperature(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= openapi.MAX_TEMPERATURE:
        raise invalid("temperature", f"{shown(value)} is not possible; possible are 0 to {openapi.MAX_TEMPERATURE:g}")
    return float(value)


def _most_tokens(given: Mapping[str, Any]) -> int | None:
    """The least of the two limits that OpenAI has for one thing."""
    found = []
    for name in ("max_tokens", "max_completion_tokens"):
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise invalid(name, f"{shown(value)} is not possible; expected a number of tokens, 1 or more")
        found.append(value)
    return min(found, default=None)


def _asr_options(options: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Of Alibaba's `asr_options` what can be honoured, and warnings: the model writes numbers as it likes, and finds
    the language out where it is not told."""
    found, warnings = {}, []
    for name, value in options.items():
        field = f"asr_options.{name}"
        if name in ("language", "context"):
            if not isinstance(value, str | None):
                raise invalid(field, f"{shown(value)} is not possible; expected text")
            if value:
                found[name] = value
        elif name in ("enable_itn", "enable_lid"):
            if value:
                warnings.append(no_effect(field, "the model itself decides it"))
        else:
            possible = "language, context, enable_itn, enable_lid"
            raise invalid(field[:MAX_SHOWN_CHARS], f"is not known here; possible are {possible}", code="unknown_field")
    return found, warnings


def _object(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = given.get(name, {})
    if not isinstance(value, dict):
        raise invalid(name, f"{shown(value)} is not possible; expected an object")
    return value


def _content(messages: Any) -> tuple[dict[str, Any], str, list[str]]:
    """The one piece of audio, the context, and warnings. As the model's chat template has it, the context is all that
    the system says, and nothing else of what is written is read."""
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
            if part["type"] in KEYS:
                sources.append(part)
            else:
                words = f"messages: the model does not read the text of {role} messages; a context is the system's"
                unread[words] = None
    if len(sources) != 1:
        raise invalid("messages", f"hold {len(sources)} pieces of audio, expected 1, as input_audio or audio_url")
    return sources[0], "".join(contexts), list(unread)


def _message(message: Any) -> tuple[str, Any]:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise invalid("messages", "expected objects with role and content")
    role = message["role"]
    if role not in (*CONTEXT_ROLES, "user", "assistant"):
        raise invalid("messages", f"the role {shown(role)} is not possible; possible are system, user and assistant")
    return role, message["content"]


def _context(content: Any) -> str:
    """The text of a system message, a string or parts of text."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
        for part in parts
    ):
        raise invalid("messages", "the system's content is the context, expected text")
    return "".join(part["text"] for part in parts)


def _parts(role: str, content: Any) -> list[dict[str, Any]]:
    """Audio and text of a message, each an object with its type."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise invalid("messages", f"the content of {role} messages: expected text, or a list of parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in (*KEYS, "text"):
            raise invalid("messages", f"a part of type {shown(kind)} is not possible; possible are {', '.join(KEYS)}")
        if not isinstance(part.get(kind), str if kind == "text" else dict):
            raise invalid("messages", f"expected {kind} beside type")
    return [part for part in content if part["type"] in KEYS or part["text"]]


def _source(part: dict[str, Any], open_file: Open) -> Upload | str:
    """The audio: base64, a data URL or a URL, each of which users put into either part."""
    kind = part["type"]
    content, key = part[kind], KEYS[kind]
    if not isinstance(content.get(key), str) or not content[key]:
        raise invalid("messages", f"{kind}: expected {key}, as text")
    form = content.get("format") or "audio"
    if not isinstance(form, str) or form in RAW or len(form) > MAX_SHOWN_CHARS:
        raise invalid("messages", f"the format {shown(form)} is not possible; send a file, such as wav")
    text: str = content[key]
    if text[:8].lower().startswith(("http://", "https://")):
        return text
    start = base64_start(kind, text)
    if start is None:
        expected = "a data URL in base64" if text[:5].lower() == "data:" else "an http, https or base64 data URL"
        raise invalid("messages", f"{kind}: expected {expected}")
    name = f"{kind}.{form}" if kind == "input_audio" else kind
    decoded = part.get(DECODED)
    if isinstance(decoded, Upload):
        return replace(decoded, name=name)
    return from_base64(text[start:], name=name, param="messages", open_file=open_file)


@dataclass(frozen=True)
class _Answer:
    """A completion, whole or in chunks."""

    number: str
    created: int
    model: str
    warnings: tuple[str, ...]

    def whole(self, heard: Transcript) -> dict[str, Any]:
        """All of it. The languages are beside the choices: Vercel's AI SDK knows no annotations of a message but links,
        and Alibaba's service has them there."""
        message = {"role": "assistant", "content": heard.text}
        choice = {"index": 0, "message": message, "finish_reason": _reason(heard)}
        spoken = [{"code": code} for name in heard.languages if (code := languages.code(name))]
        rest = {"usage": _usage(heard), "languages": spoken, **self._told()}
        return {**self._frame("chat.completion"), "choices": [choice], **rest}

    def chunk(self, text: str) -> str:
        """A bit of text."""
        return self._chunk({"role": "assistant", "content": text}, None)

    def end(self, heard: Transcript, *, with_usage: bool) -> list[str]:
        """The last chunks, and OpenAI's mark of the end."""
        usage = data_of({**self._frame("chat.completion.chunk"), "choices": [], "usage": _usage(heard)})
        return [self._chunk({}, _reason(heard), **self._told()), *([usage] if with_usage else []), "[DONE]"]

    def _chunk(self, delta: dict[str, str], reason: str | None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return data_of({**self._frame("chat.completion.chunk"), "choices": [choice], **more})

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.number, "object": kind, "created": self.created, "model": self.model}

    def _told(self) -> dict[str, Any]:
        return {"warnings": self.warnings} if self.warnings else {}


def _usage(heard: Transcript) -> dict[str, Any]:
    """OpenAI's, and beside it the seconds of audio, as Alibaba's service has them."""
    return {
        "prompt_tokens": heard.prompt_tokens,
        "completion_tokens": heard.tokens,
        "total_tokens": heard.prompt_tokens + heard.tokens,
        "prompt_tokens_details": {"audio_tokens": heard.audio_tokens},
        "seconds": round(heard.seconds, 3),
    }


def _reason(heard: Transcript) -> str:
    return "length" if heard.truncated else "stop"
