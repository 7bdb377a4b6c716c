"""What the OpenAPI document says about answers."""

from typing import Any, Literal

from pydantic import BaseModel

Answers = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None
    request_id: str | None = None


class Failure(BaseModel):
    """Any answer that is not what was asked for."""

    error: Problem


FAILURES: dict[int | str, str] = {
    400: "Something that was sent cannot be honoured; the message says what can.",
    401: "A key is needed, or another one.",
    403: "This may not be asked from there.",
    404: "There is no such model.",
    408: "The body took too long to arrive.",
    409: "The server ends.",
    413: "The body is too large.",
    415: "The body is of another type.",
    429: "The queue is full, or the caller has asked too much; Retry-After says when to try again.",
    500: "A segment could not be decoded.",
    503: "The server is starting, draining or stopping, or its engine has failed.",
    504: "The request took too long.",
    507: "There is no room to store what was sent.",
    "4XX": "Another mistake in the request.",
}
CALLED = (401, 403, 429, 503)
HEARING = (400, *CALLED, 404, 408, 413, 415, 500, 504, 507)

_text: dict[str, Any] = {"schema": {"type": "string"}}
_warnings = {"type": "array", "items": {"type": "string"}, "description": "What was sent and had no effect."}
_segment = {
    "type": "object",
    "required": [
        *("id", "seek", "start", "end", "text", "tokens"),
        *("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"),
    ],
    "properties": {
        "id": {"type": "integer"},
        "seek": {"type": "integer", "description": "Where what was decoded at once begins, in frames of 10 ms."},
        "start": {"type": "number", "description": "Seconds, when somebody begins to speak."},
        "end": {"type": "number", "description": "Seconds, when they stop."},
        "text": {"type": "string"},
        "tokens": {"type": "array", "items": {"type": "integer"}},
        "temperature": {"const": 0.0},
        "avg_logprob": {"type": "number", "description": "Of what was decoded at once; 0 with the engine vllm."},
        "compression_ratio": {"type": "number", "description": "Of what was decoded at once."},
        "no_speech_prob": {"const": 0.0, "description": "Silence is never decoded."},
        "language": {"type": "string"},
        "lines": {"type": "array", "items": {"type": "string"}, "description": "The text as a subtitle."},
        "estimated_times": {
            "type": "boolean",
            "description": "Text was spread over the speech by its length.",
        },
        "truncated": {"type": "boolean"},
        "repeated_characters": {"type": "integer"},
    },
}
_heard = {
    "type": "object",
    "required": ["text", "language", "duration", "truncated"],
    "properties": {
        "text": {"type": "string"},
        "language": {
            "type": ["string", "null"],
            "description": "As the model names it, null for silence; in verbose_json as OpenAI has it: in lower case, "
            "the first of several, empty for silence.",
        },
        "language_codes": {"type": "array", "items": {"type": "string"}, "description": "ISO codes of all segments."},
        "languages": {
            "type": "array",
            "items": {"type": "object", "required": ["code"]},
            "description": "The same as OpenAI has it.",
        },
        "duration": {"type": "number", "description": "Seconds on a player's clock, up to the end of the sound."},
        "tokens": {"type": "integer"},
        "truncated": {"type": "boolean", "description": "Whether text is missing, as a segment took too many tokens."},
        "repeated_characters": {"type": "integer", "description": "Dropped, as the model had run in circles."},
        "usage": {"type": "object", "required": ["type", "seconds"]},
        "segments": {"type": "array", "items": _segment, "description": "With verbose_json."},
        "warnings": _warnings,
    },
}
_completion = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "chat.completion"},
        "created": {"type": "integer", "description": "Seconds since 1970."},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": 1},
        "usage": {"type": "object", "description": "Tokens, those of audio included, and seconds of audio."},
        "warnings": _warnings,
    },
}
_health = {
    "type": "object",
    "required": ["status", "stage"],
    "properties": {
        "status": {"enum": ["starting", "ready", "draining"]},
        "stage": {"type": "string", "description": "The same in words."},
    },
}

SUCCESSES: dict[str, dict[str, Any]] = {
    "/v1/audio": {
        "application/json": {"schema": _heard},
        "text/plain": _text,
        "text/vtt": _text,
        "text/event-stream": _text,
    },
    "/v1/chat": {"application/json": {"schema": _completion}, "text/event-stream": _text},
}
HEALTH: Answers = {
    status: {"description": words, "content": {"application/json": {"schema": _health}}}
    for status, words in ((200, "Yes."), (503, "Not now."))
}
STATUSES: dict[str, tuple[int | str, ...]] = {
    "/v1/audio": HEARING,
    "/v1/chat": HEARING,
    "/v1/models": (*CALLED, 404, "4XX"),  # without which FastAPI would add its own, for a name that cannot be wrong
    "/v1": CALLED,
    "/admin": (400, 401, 403, 409, 503),
}


def answers(prefix: str) -> Answers:
    """The answers of the routes with this prefix, besides FastAPI's own."""
    if prefix == "/health":
        return HEALTH
    success: Answers = {200: {"content": SUCCESSES[prefix]}} if prefix in SUCCESSES else {}
    return success | {
        status: {"model": Failure, "description": FAILURES[status]}
        for status in sorted(STATUSES.get(prefix, ()), key=str)
    }
