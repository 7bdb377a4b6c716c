"""What the OpenAPI document says about answers."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel

from runtime.audio import FORMATS as AUDIO_FORMATS
from runtime.formats import FORMATS
from runtime.server.state import ServerPhase

GREEDY_REASON = "decoding is greedy"
MAX_TEMPERATURE = 2.0  # as at vLLM; OpenAI's is 1

_SAMPLING = dict.fromkeys(
    (
        *("temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty"),
        *("repetition_penalty", "length_penalty", "use_beam_search", "logit_bias", "best_of"),
    ),
    GREEDY_REASON,
)
_CALLER = dict.fromkeys(("user", "safety_identifier", "metadata", "request_id", "priority"), "callers go by their keys")

# Fields that clients of other servers send and that have no effect here, each with the reason: those of OpenAI's API
# (openai-python 3.57), of vLLM 0.18 and of speaches. Any other unknown field is refused, as it may be misspelt; so is
# one that asks for another result than a transcript.
IGNORED_TRANSCRIPTION_FIELDS: Mapping[str, str] = {
    **_SAMPLING,
    **_CALLER,
    "include": "log-probabilities are told of segments alone, in verbose_json",
    "chunking_strategy": "audio is cut at quiet places",
    "extra_headers": "headers belong to the request, not into its form",
    "vad_filter": "silence never reaches the model",
    "vad_parameters": "silence never reaches the model",
    "without_timestamps": "response_format decides it",
    "stream_include_usage": "the last event always has it",
    "stream_continuous_usage_stats": "the last event has the usage",
    "vllm_xargs": "nothing of it is known here",
}
IGNORED_CHAT_FIELDS: Mapping[str, str] = {
    **_SAMPLING,
    **_CALLER,
    **dict.fromkeys(("logprobs", "top_logprobs", "prompt_logprobs"), "they are not told here"),
    **dict.fromkeys(("stop", "stop_token_ids", "min_tokens", "ignore_eos"), "a transcript ends where the speech does"),
    **dict.fromkeys(
        ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "web_search_options"),
        "a transcript calls no tools",
    ),
    **dict.fromkeys(("reasoning_effort", "verbosity", "prediction", "moderation"), "the model only transcribes"),
    **dict.fromkeys(("store", "service_tier"), "nothing is stored, and all requests are served alike"),
    **dict.fromkeys(
        ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_salt"), "there is no cache"
    ),
    **dict.fromkeys(
        (
            *("add_generation_prompt", "continue_final_message", "add_special_tokens", "chat_template"),
            *("chat_template_kwargs", "mm_processor_kwargs", "documents", "echo", "truncate_prompt_tokens"),
            *("skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output"),
            *("return_token_ids", "return_tokens_as_token_ids", "include_reasoning", "vllm_xargs"),
        ),
        "the prompt, and how tokens are read, are the kit's own",
    ),
}

Responses = dict[int | str, dict[str, Any]]


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


ERROR_DESCRIPTIONS: dict[int | str, str] = {
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
API_ERRORS = (401, 403, 429, 503)
TRANSCRIPTION_ERRORS = (400, *API_ERRORS, 404, 408, 413, 415, 500, 504, 507)

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
_transcript = {
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
        "status": {"enum": list(get_args(ServerPhase))},
        "stage": {"type": "string", "description": "The same in words."},
    },
}

SUCCESS_CONTENT: dict[str, dict[str, Any]] = {
    "/v1/audio": {
        "application/json": {"schema": _transcript},
        "text/plain": _text,
        "text/vtt": _text,
        "text/event-stream": _text,
    },
    "/v1/chat": {"application/json": {"schema": _completion}, "text/event-stream": _text},
}
HEALTH_RESPONSES: Responses = {
    status: {"description": description, "content": {"application/json": {"schema": _health}}}
    for status, description in ((200, "Yes."), (503, "Not now."))
}
ROUTE_ERRORS: dict[str, tuple[int | str, ...]] = {
    "/v1/audio": TRANSCRIPTION_ERRORS,
    "/v1/chat": TRANSCRIPTION_ERRORS,
    "/v1/models": (*API_ERRORS, 404, "4XX"),  # without which FastAPI would add its own, for a name that cannot be wrong
    "/v1": API_ERRORS,
    "/admin": (400, 401, 403, 409, 503),
}


def responses_of(prefix: str) -> Responses:
    """The answers of the routes with this prefix, besides FastAPI's own."""
    if prefix == "/health":
        return HEALTH_RESPONSES
    success: Responses = {200: {"content": SUCCESS_CONTENT[prefix]}} if prefix in SUCCESS_CONTENT else {}
    return success | {
        status: {"model": Failure, "description": ERROR_DESCRIPTIONS[status]}
        for status in sorted(ROUTE_ERRORS.get(prefix, ()), key=str)
    }


def _string(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _without_effect(fields: Mapping[str, str]) -> dict[str, Any]:
    """Fields that other servers know, of any type."""
    return {name: {"description": f"No effect: {why}."} for name, why in fields.items()}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_LIMIT = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
_TEMPERATURE = {
    "type": "number",
    "minimum": 0,
    "maximum": MAX_TEMPERATURE,
    "description": f"No effect: {GREEDY_REASON}.",
}

_FORM = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **_without_effect(IGNORED_TRANSCRIPTION_FIELDS),
        "file": _string(f"Audio: {AUDIO_FORMATS}.", format="binary"),
        "url": _string("Audio at an http or https URL, instead of a file.", format="uri"),
        "model": _string("A name of the model that is served; it need not be given."),
        "language": _string("Language by code, BCP 47 tag or name; auto or not given: detected."),
        "languages[]": _texts("One: as language. Several: which of all languages is spoken is detected."),
        "to_language": _string("As language, for clients of vLLM; nothing is translated."),
        "prompt": _string("Hotwords or a passage that tells what to expect."),
        "keywords[]": _texts("Hotwords, put behind the prompt."),
        "hotwords": _texts("As keywords."),
        "response_format": _string("Form of the answer.", enum=list(FORMATS), default="json"),
        "task": _string("What else there is: translation, which is refused.", enum=["transcribe"]),
        "stream": {"type": "boolean", "default": False, "description": "Server-sent events: text, json, verbose_json."},
        "temperature": _TEMPERATURE,
        "max_completion_tokens": {**_LIMIT, "description": "Most tokens of the answer; what is cut is truncated."},
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"type": "string", "enum": ["segment", "word"]},
            "description": "With verbose_json. Words have no times: word alone is refused.",
        },
    },
}

_PART = {
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "input_audio"],
            "properties": {
                "type": {"const": "input_audio"},
                "input_audio": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {
                        "data": _string("A file in base64, as a data URL, or an http or https URL."),
                        "format": _string("Its format."),
                    },
                },
            },
        },
        {
            "type": "object",
            "required": ["type", "text"],
            "properties": {
                "type": {"const": "text"},
                "text": _string("Not read; a context is the system's."),
            },
        },
        {
            "type": "object",
            "required": ["type", "audio_url"],
            "properties": {
                "type": {"const": "audio_url"},
                "audio_url": {
                    "type": "object",
                    "required": ["url"],
                    "properties": {"url": _string("An http, https or base64 data URL.")},
                },
            },
        },
    ]
}

_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"oneOf": [_string("Of the system: the context."), {"type": "array", "items": _PART}]},
    },
}

_CHAT = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": False,
    "properties": {
        **_without_effect(IGNORED_CHAT_FIELDS),
        "model": _string("A name of the model that is served; it need not be given."),
        "messages": {"type": "array", "items": _MESSAGE, "description": "One piece of audio, perhaps a context."},
        "stream": {"type": "boolean", "default": False},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "temperature": _TEMPERATURE,
        "max_tokens": {**_LIMIT, "description": "Most tokens of the answer; one that is cut ends with length."},
        "max_completion_tokens": {**_LIMIT, "description": "As max_tokens."},
        "n": {"type": "integer", "enum": [1]},
        "modalities": {"type": "array", "items": {"enum": ["text"]}, "minItems": 1, "maxItems": 1},
        "response_format": {"type": "object", "properties": {"type": {"enum": ["text"]}}},
        "asr_options": {
            "type": "object",
            "additionalProperties": False,
            "description": "As Alibaba's service has them.",
            "properties": {
                "language": _string("Language to force."),
                "context": _string("As a system message."),
                "enable_itn": {"type": "boolean", "description": "No effect: the model writes numbers as it likes."},
                "enable_lid": {"type": "boolean", "description": "No effect: languages are always told."},
            },
        },
    },
}

TRANSCRIPTION_REQUEST: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}
CHAT_REQUEST: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": _CHAT}}}}
