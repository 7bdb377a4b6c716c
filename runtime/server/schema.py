"""What the OpenAPI document says about bodies, which the routes read by hand to be able to refuse what they do not
know."""

from collections.abc import Mapping
from typing import Any

from runtime.audio import FORMATS as AUDIO_FORMATS
from runtime.formats import FORMATS
from runtime.server.hints import CHAT as CHAT_HINTS
from runtime.server.hints import GREEDY, HOTTEST
from runtime.server.hints import TRANSCRIPTION as TRANSCRIPTION_HINTS


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _without_effect(fields: Mapping[str, str]) -> dict[str, Any]:
    """Fields that other servers know, of any type."""
    return {name: {"description": f"No effect: {why}."} for name, why in fields.items()}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_LIMIT = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
_TEMPERATURE = {"type": "number", "minimum": 0, "maximum": HOTTEST, "description": f"No effect: {GREEDY}."}

_FORM = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **_without_effect(TRANSCRIPTION_HINTS),
        "file": _text(f"Audio: {AUDIO_FORMATS}.", format="binary"),
        "url": _text("Audio at an http or https URL, instead of a file.", format="uri"),
        "model": _text("A name of the model that is served; it need not be given."),
        "language": _text("Language by code, BCP 47 tag or name; auto or not given: detected."),
        "languages[]": _texts("One: as language. Several: which of all languages is spoken is detected."),
        "to_language": _text("As language, for clients of vLLM; nothing is translated."),
        "prompt": _text("Hotwords or a passage that tells what to expect."),
        "keywords[]": _texts("Hotwords, put behind the prompt."),
        "hotwords": _texts("As keywords."),
        "response_format": _text("Form of the answer.", enum=list(FORMATS), default="json"),
        "task": _text("What else there is: translation, which is refused.", enum=["transcribe"]),
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
                        "data": _text("A file in base64, as a data URL, or an http or https URL."),
                        "format": _text("Its format."),
                    },
                },
            },
        },
        {
            "type": "object",
            "required": ["type", "text"],
            "properties": {
                "type": {"const": "text"},
                "text": _text("Not read; a context is the system's."),
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
                    "properties": {"url": _text("An http, https or base64 data URL.")},
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
        "content": {"oneOf": [_text("Of the system: the context."), {"type": "array", "items": _PART}]},
    },
}

_CHAT = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": False,
    "properties": {
        **_without_effect(CHAT_HINTS),
        "model": _text("A name of the model that is served; it need not be given."),
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
                "language": _text("Language to force."),
                "context": _text("As a system message."),
                "enable_itn": {"type": "boolean", "description": "No effect: the model writes numbers as it likes."},
                "enable_lid": {"type": "boolean", "description": "No effect: languages are always told."},
            },
        },
    },
}

TRANSCRIPTION: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}
CHAT: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": _CHAT}}}}
