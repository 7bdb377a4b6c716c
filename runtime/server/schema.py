"""What the OpenAPI document says about bodies, which the routes read by hand to be able to refuse what they do not
know."""

from typing import Any

from runtime.formats import FORMATS


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


_FORM = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "file": _text("Audio: wav, flac, ogg, mp3, aac, m4a, mp4 or webm.", format="binary"),
        "url": _text("Audio at an http or https URL, instead of a file.", format="uri"),
        "model": _text("A name of the model that is served; it need not be given."),
        "language": _text("Language by ISO code or English name; not given: detected."),
        "prompt": _text("Hotwords or a passage that tells what to expect."),
        "response_format": _text("Form of the answer.", enum=list(FORMATS), default="json"),
        "stream": {"type": "boolean", "default": False, "description": "Server-sent events: json or verbose_json."},
        "temperature": {"type": "number", "enum": [0], "description": "Only 0: decoding is greedy."},
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"type": "string", "enum": ["segment"]},
            "description": "Only segment, with verbose_json.",
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
                    "properties": {"data": _text("A file in base64."), "format": _text("Its format.")},
                },
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
        "role": {"enum": ["system", "user"]},
        "content": {"oneOf": [_text("Of the system: the context."), {"type": "array", "items": _PART}]},
    },
}

_CHAT = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": False,
    "properties": {
        "model": _text("A name of the model that is served; it need not be given."),
        "messages": {"type": "array", "items": _MESSAGE, "description": "One of the user, perhaps one of the system."},
        "stream": {"type": "boolean", "default": False},
        "temperature": {"type": "number", "enum": [0]},
    },
}

TRANSCRIPTION: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}
CHAT: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": _CHAT}}}}
