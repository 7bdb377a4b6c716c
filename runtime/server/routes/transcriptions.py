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
from runtime.server.errors import FullError, from_kit, invalid
from runtime.server.routes.info import check_model
from runtime.server.state import life_of
from runtime.server.streaming import data_of, no_effect, streamed, whole, with_warnings
from runtime.server.uploads import Fields, Upload, form
from runtime.transcript import Transcript

router = APIRouter(prefix="/v1/audio", tags=["transcription"])

STREAMED = ("json", "verbose_json", "text")  # text: as json; its clients read the deltas
TRUNCATED = "text is missing: the most tokens cut it off"  # in a header, as text and subtitles cannot say so
MEDIA_TYPES = {"json": "application/json", "verbose_json": "application/json", "vtt": "text/vtt; charset=utf-8"}


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a client wants; `warnings` say what of it has no effect."""

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
        """The fields that errors of the transcriber belong to."""
        return {
            "audio": "url" if isinstance(self.source, str) else "file",
            "language": "language",
            "prompt": "prompt",
        }


@router.post("/transcriptions", openapi_extra=openapi.TRANSCRIPTION)
async def transcribe(request: Request) -> Response:
    """Transcribe a file, or the audio at a URL."""
    service = life_of(request).service
    try:
        service.refuse_if_full()  # before an upload is read for nothing
    except FullError as error:
        raise from_kit(error, {}) from error
    async with form(request, service.settings) as fields:
        ask = read(fields)
        warnings = (*check_model(ask.model, service.settings), *ask.warnings)
        timed = formats.FORMATS[ask.format].timed
        wanted = transcriber.Request(ask.source, ask.language, ask.context, timed, ask.max_tokens)
        if ask.stream:
            answer = await streamed(
                request,
                service,
                wanted,
                fields=ask.names,
                on_text=lambda text: data_of({"type": "transcript.text.delta", "delta": text}),
                on_end=lambda heard: [_done(replace(heard, warnings=warnings), ask.format)],
            )
            return with_warnings(answer, warnings)
        heard = replace(await whole(request, service, wanted, fields=ask.names), warnings=warnings)
    written = await service.write(lambda: formats.FORMATS[ask.format].write(heard))
    media_type = MEDIA_TYPES.get(ask.format, "text/plain; charset=utf-8")
    missing = [TRUNCATED] if heard.truncated else []
    return with_warnings(Response(written, media_type=media_type), [*warnings, *missing])


def read(fields: Fields) -> TranscriptionRequest:
    """What the form asks for. An empty field is as good as none.

    Raises ApiError, 400, for what would change the result and cannot be honoured, and for what is not known.
    """
    given = _given(fields)
    wanted: dict[str, Any] = {}
    warnings: list[str] = []
    for name, values in given.items():
        if name in openapi.IGNORED_TRANSCRIPTION_FIELDS and name not in FIELDS:
            warnings.append(no_effect(name, openapi.IGNORED_TRANSCRIPTION_FIELDS[name]))
        elif name in LISTS:
            wanted[name] = [_text(name, value) for value in values]
        elif len(values) > 1:
            raise invalid(name, f"is given {len(values)} times, expected once")
        else:
            wanted[name] = FIELDS[name](name, values[0])
    sources = [wanted[name] for name in ("file", "url") if name in wanted]
    if len(sources) != 1:
        raise invalid("file", "give one of file and url", code="missing_field")
    form_of_answer, stream = wanted.get("response_format", "json"), wanted.get("stream", False)
    if stream and form_of_answer not in STREAMED:
        words = f"{form_of_answer} cannot be streamed; possible with stream are {', '.join(STREAMED)}"
        raise invalid("response_format", words)
    if wanted.get("temperature"):
        warnings.append(no_effect("temperature", openapi.GREEDY_REASON))
    warnings += _check_granularities(wanted.get("timestamp_granularities", []), form_of_answer)
    language, several = _language(wanted)
    return TranscriptionRequest(
        source=sources[0],
        model=wanted.get("model"),
        language=language,
        context=_context(wanted.get("prompt", ""), [*wanted.get("keywords", []), *wanted.get("hotwords", [])]),
        max_tokens=wanted.get("max_completion_tokens"),
        format=form_of_answer,
        stream=stream,
        warnings=(*warnings, *several),
    )


def _given(fields: Fields) -> Fields:
    """The fields that hold something, by their names without brackets."""
    given: Fields = {}
    for name, values in fields.items():
        bare = name.partition("[")[0]  # clients write lists as name[], and objects as name[field]
        if bare not in POSSIBLE and bare not in SPEAKERS:
            raise invalid(
                name, f"is not known here; possible are {', '.join(sorted({*FIELDS, *LISTS}))}", code="unknown_field"
            )
        some = [value for value in values if value not in ("", *(NO if bare in SPEAKERS else ()))]
        if some and bare in SPEAKERS:
            raise invalid(name, "speakers are not told apart here")
        if some:
            given.setdefault(bare, []).extend(some)
    return given


def _context(prompt: str, keywords: Sequence[str]) -> str:
    """One context for the model: a passage, hotwords, or both."""
    return "\n".join(part for part in (prompt, ", ".join(keywords)) if part)


def _language(wanted: dict[str, Any]) -> tuple[str | None, list[str]]:
    """The language to force, and a warning where there are several to choose from. vLLM forces `to_language`, which
    for this model is what it hears, too."""
    one, other = (_meant(name, [wanted[name]] if name in wanted else []) for name in ("language", "to_language"))
    if one and other and one != other:
        raise invalid("to_language", f"{other[0]} is another language than {one[0]}: nothing is translated here")
    candidates = _meant("languages", wanted.get("languages", []))
    if forced := one or other:
        return forced[0], [no_effect("languages", "language is given")] if candidates not in ([], forced) else []
    if len(candidates) > 1:
        return None, [no_effect("languages", "only one can be forced; which of all is spoken is detected")]
    return (candidates[0] if candidates else None), []


def _meant(field: str, names: Sequence[str]) -> list[str]:
    """The languages by their English names, each once, without what leaves it to the model."""
    try:
        return list(dict.fromkeys(english for name in names if (english := languages.resolve(name))))
    except UnknownLanguageError as error:
        raise from_kit(error, {"language": field}) from error


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
    wanted = _text(name, value)
    if wanted not in formats.FORMATS:
        raise invalid(name, f"{wanted!r} is not possible; possible are {', '.join(formats.FORMATS)}")
    return wanted


def _task(name: str, value: str | Upload) -> None:
    if (wanted := _text(name, value)) != "transcribe":
        raise invalid(name, f"{wanted!r} is not possible; possible is transcribe")


def _boolean(name: str, value: str | Upload) -> bool:
    wanted = _text(name, value).lower()
    if wanted not in ("true", "false", "1", "0"):
        raise invalid(name, f"{value!r} is not possible; possible are true and false")
    return wanted in ("true", "1")


def _temperature(name: str, value: str | Upload) -> float:
    wanted = _text(name, value)
    try:
        number = float(wanted)
    except ValueError:
        number = math.nan
    if not 0 <= number <= openapi.MAX_TEMPERATURE:
        raise invalid(name, f"{wanted!r} is not possible; possible are 0 to {openapi.MAX_TEMPERATURE:g}")
    return number


def _count(name: str, value: str | Upload) -> int:
    wanted = _text(name, value)
    if not (wanted.isascii() and wanted.isdecimal() and 0 < len(wanted) < 10 and int(wanted)):
        raise invalid(name, f"{wanted[:80]!r} is not possible; expected a number of tokens, 1 or more")
    return int(wanted)


def _check_granularities(values: Sequence[str], form_of_answer: str) -> list[str]:
    """Warnings about what of the times that are asked for the answer lacks."""
    name = "timestamp_granularities"
    for value in values:
        if value not in ("segment", "word"):
            raise invalid(f"{name}[]", f"{value!r} is not possible; possible are segment and word")
    if not values:
        return []
    if form_of_answer != "verbose_json":
        return [no_effect(name, f"{form_of_answer} has no place for them; verbose_json does")]
    if "segment" not in values:
        raise invalid(f"{name}[]", "words have no times here; segment is possible")
    return [f"{name}: words have no times here, segments do"] if "word" in values else []


FIELDS: dict[str, Callable[[str, str | Upload], Any]] = {
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
    "max_completion_tokens": _count,
}
NO = ("false", "0")
SPEAKERS = ("known_speaker_names", "known_speaker_references", "diarize")
LISTS = {"languages", "keywords", "hotwords", "timestamp_granularities"}
POSSIBLE = {*FIELDS, *LISTS, *openapi.IGNORED_TRANSCRIPTION_FIELDS}


def _done(heard: Transcript, form_of_answer: str) -> str:
    """The last event: it has all that the answer would have without a stream."""
    written = formats.FORMATS["json" if form_of_answer == "text" else form_of_answer].write(heard)
    return data_of({"type": "transcript.text.done", **json.loads(written)})
