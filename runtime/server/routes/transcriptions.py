"""POST /v1/audio/transcriptions, as OpenAI's clients send it."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime import formats, languages, transcriber
from runtime.languages import UnknownLanguageError
from runtime.server import openapi
from runtime.server.errors import FullError, invalid, to_api_error
from runtime.server.routes.info import check_model
from runtime.server.state import state_of
from runtime.server.streaming import no_effect, stream_transcript, to_json, whole_transcript, with_warnings
from runtime.server.uploads import Fields, Upload, read_form
from runtime.transcript import Transcript

router = APIRouter(prefix="/v1/audio", tags=["transcription"])

STREAMABLE_FORMATS = ("json", "verbose_json", "text")  # text: as json; its clients read the deltas
TRUNCATED_WARNING = "text is missing: the most tokens cut it off"  # in a header, as text and subtitles cannot say so
MEDIA_TYPES = {"json": "application/json", "verbose_json": "application/json", "vtt": "text/vtt; charset=utf-8"}


@dataclass(frozen=True)
class TranscriptionRequest:
    """A parsed request; `warnings` name what in it has no effect."""

    source: Upload | str
    model: str | None
    language: str | None
    context: str
    max_tokens: int | None
    format: str
    stream: bool
    warnings: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """The form's fields that the transcriber's errors are about."""
        return {
            "audio": "url" if isinstance(self.source, str) else "file",
            "language": "language",
            "prompt": "prompt",
        }


@router.post("/transcriptions", openapi_extra=openapi.TRANSCRIPTION_REQUEST)
async def transcribe(request: Request) -> Response:
    """Transcribe a file, or the audio at a URL."""
    service = state_of(request).service
    try:
        service.check_capacity()  # before an upload is read for nothing
    except FullError as error:
        raise to_api_error(error, {}) from error
    async with read_form(request, service.settings) as fields:
        parsed = parse_fields(fields)
        warnings = (*check_model(parsed.model, service.settings), *parsed.warnings)
        timed = formats.FORMATS[parsed.format].timed
        transcription = transcriber.Request(parsed.source, parsed.language, parsed.context, timed, parsed.max_tokens)
        if parsed.stream:
            answer = await stream_transcript(
                request,
                service,
                transcription,
                fields=parsed.names,
                on_text=lambda text: to_json({"type": "transcript.text.delta", "delta": text}),
                on_end=lambda transcript: [_done_event(replace(transcript, warnings=warnings), parsed.format)],
            )
            return with_warnings(answer, warnings)
        transcript = replace(
            await whole_transcript(request, service, transcription, fields=parsed.names), warnings=warnings
        )
    written = await service.in_writer_thread(lambda: formats.FORMATS[parsed.format].write(transcript))
    media_type = MEDIA_TYPES.get(parsed.format, "text/plain; charset=utf-8")
    missing = [TRUNCATED_WARNING] if transcript.truncated else []
    return with_warnings(Response(written, media_type=media_type), [*warnings, *missing])


def parse_fields(fields: Fields) -> TranscriptionRequest:
    """Parse the form's fields. An empty field counts as absent.

    Raises ApiError, 400, for an unknown field, and for one that asks for another result.
    """
    known = _known_fields(fields)
    parsed: dict[str, Any] = {}
    warnings: list[str] = []
    for name, values in known.items():
        if name in openapi.IGNORED_TRANSCRIPTION_FIELDS and name not in FIELD_PARSERS:
            warnings.append(no_effect(name, openapi.IGNORED_TRANSCRIPTION_FIELDS[name]))
        elif name in LIST_FIELDS:
            parsed[name] = [_text(name, value) for value in values]
        elif len(values) > 1:
            raise invalid(name, f"is given {len(values)} times, expected once")
        else:
            parsed[name] = FIELD_PARSERS[name](name, values[0])
    sources = [parsed[name] for name in ("file", "url") if name in parsed]
    if len(sources) != 1:
        raise invalid("file", "give one of file and url", code="missing_field")
    response_format, stream = parsed.get("response_format", "json"), parsed.get("stream", False)
    if stream and response_format not in STREAMABLE_FORMATS:
        message = f"{response_format} cannot be streamed; possible with stream are {', '.join(STREAMABLE_FORMATS)}"
        raise invalid("response_format", message)
    if parsed.get("temperature"):
        warnings.append(no_effect("temperature", openapi.GREEDY_REASON))
    warnings += _check_granularities(parsed.get("timestamp_granularities", []), response_format)
    language, several = _language(parsed)
    return TranscriptionRequest(
        source=sources[0],
        model=parsed.get("model"),
        language=language,
        context=_context(parsed.get("prompt", ""), [*parsed.get("keywords", []), *parsed.get("hotwords", [])]),
        max_tokens=parsed.get("max_completion_tokens"),
        format=response_format,
        stream=stream,
        warnings=(*warnings, *several),
    )


def _known_fields(fields: Fields) -> Fields:
    """The fields that are not empty, by their names without brackets."""
    known: Fields = {}
    for name, values in fields.items():
        base_name = name.partition("[")[0]  # clients write lists as name[], and objects as name[field]
        if base_name not in KNOWN_FIELDS and base_name not in SPEAKER_FIELDS:
            possible = ", ".join(sorted({*FIELD_PARSERS, *LIST_FIELDS}))
            raise invalid(name, f"is not known here; possible are {possible}", code="unknown_field")
        filled = [
            value for value in values if value not in ("", *(FALSE_VALUES if base_name in SPEAKER_FIELDS else ()))
        ]
        if filled and base_name in SPEAKER_FIELDS:
            raise invalid(name, "speakers are not told apart here")
        if filled:
            known.setdefault(base_name, []).extend(filled)
    return known


def _context(prompt: str, keywords: Sequence[str]) -> str:
    """The model's context: a passage, hotwords, or both."""
    return "\n".join(part for part in (prompt, ", ".join(keywords)) if part)


def _language(parsed: dict[str, Any]) -> tuple[str | None, list[str]]:
    """The language to force, and a warning if several are given. vLLM forces `to_language`, which for this model is the
    spoken language, too."""
    one, other = (
        _resolve_languages(name, [parsed[name]] if name in parsed else []) for name in ("language", "to_language")
    )
    if one and other and one != other:
        raise invalid("to_language", f"{other[0]} is another language than {one[0]}: nothing is translated here")
    candidates = _resolve_languages("languages", parsed.get("languages", []))
    if forced := one or other:
        return forced[0], [no_effect("languages", "language is given")] if candidates not in ([], forced) else []
    if len(candidates) > 1:
        return None, [no_effect("languages", "only one can be forced; which of all is spoken is detected")]
    return (candidates[0] if candidates else None), []


def _resolve_languages(field: str, names: Sequence[str]) -> list[str]:
    """The languages' English names, each once, without those that mean detection."""
    try:
        return list(dict.fromkeys(english for name in names if (english := languages.resolve(name))))
    except UnknownLanguageError as error:
        raise to_api_error(error, {"language": field}) from error


def _file(name: str, value: str | Upload) -> Upload:
    if isinstance(value, str):
        raise invalid(name, "is text, expected a file with a filename")
    return value


def _text(name: str, value: str | Upload) -> str:
    if isinstance(value, Upload):
        raise invalid(name, "is a file, expected text")
    return value


def _url(name: str, value: str | Upload) -> str:
    url = _text(name, value)
    if not url.lower().startswith(("http://", "https://")):
        raise invalid(name, "expected an http or https URL")
    return url


def _format(name: str, value: str | Upload) -> str:
    text = _text(name, value)
    if text not in formats.FORMATS:
        raise invalid(name, f"{text!r} is not possible; possible are {', '.join(formats.FORMATS)}")
    return text


def _task(name: str, value: str | Upload) -> None:
    if (text := _text(name, value)) != "transcribe":
        raise invalid(name, f"{text!r} is not possible; possible is transcribe")


def _boolean(name: str, value: str | Upload) -> bool:
    text = _text(name, value).lower()
    if text not in ("true", "false", "1", "0"):
        raise invalid(name, f"{value!r} is not possible; possible are true and false")
    return text in ("true", "1")


def _temperature(name: str, value: str | Upload) -> float:
    text = _text(name, value)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= openapi.MAX_TEMPERATURE:
        raise invalid(name, f"{text!r} is not possible; possible are 0 to {openapi.MAX_TEMPERATURE:g}")
    return number


def _token_count(name: str, value: str | Upload) -> int:
    text = _text(name, value)
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 10 and int(text)):
        raise invalid(name, f"{text[:80]!r} is not possible; expected a number of tokens, 1 or more")
    return int(text)


def _check_granularities(values: Sequence[str], response_format: str) -> list[str]:
    """Return warnings about requested times that the answer lacks."""
    name = "timestamp_granularities"
    for value in values:
        if value not in ("segment", "word"):
            raise invalid(f"{name}[]", f"{value!r} is not possible; possible are segment and word")
    if not values:
        return []
    if response_format != "verbose_json":
        return [no_effect(name, f"{response_format} has no place for them; verbose_json does")]
    if "segment" not in values:
        raise invalid(f"{name}[]", "words have no times here; segment is possible")
    return [f"{name}: words have no times here, segments do"] if "word" in values else []


FIELD_PARSERS: dict[str, Callable[[str, str | Upload], Any]] = {
    "file": _file,
    "url": _url,
    "model": _text,
    "language": _text,
    "to_language": _text,
    "prompt": _text,
    "response_format": _format,
    "stream": _boolean,
    "task": _task,
    "temperature": _temperature,
    "max_completion_tokens": _token_count,
}
FALSE_VALUES = ("false", "0")
SPEAKER_FIELDS = ("known_speaker_names", "known_speaker_references", "diarize")
LIST_FIELDS = {"languages", "keywords", "hotwords", "timestamp_granularities"}
KNOWN_FIELDS = {*FIELD_PARSERS, *LIST_FIELDS, *openapi.IGNORED_TRANSCRIPTION_FIELDS}


def _done_event(transcript: Transcript, response_format: str) -> str:
    """The last event, with all that an answer without a stream has."""
    written = formats.FORMATS["json" if response_format == "text" else response_format].write(transcript)
    return to_json({"type": "transcript.text.done", **json.loads(written)})
