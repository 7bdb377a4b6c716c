"""POST /v1/audio/transcriptions, as OpenAI's clients send it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime import formats, transcriber
from runtime.server import schema
from runtime.server.answering import data_of, refused, streamed, whole
from runtime.server.errors import FullError, from_kit
from runtime.server.life import life_of
from runtime.server.models import check_model
from runtime.server.uploads import Fields, Upload, form
from runtime.transcript import Transcript

router = APIRouter(prefix="/v1/audio", tags=["transcription"])

STREAMED = ("json", "verbose_json")
MEDIA_TYPES = {"json": "application/json", "verbose_json": "application/json", "vtt": "text/vtt; charset=utf-8"}
GRANULARITIES = "timestamp_granularities"


@dataclass(frozen=True)
class Ask:
    """What a client wants."""

    source: Upload | str
    model: str | None
    language: str | None
    context: str
    format: str
    stream: bool

    @property
    def names(self) -> dict[str, str]:
        """The fields that errors of the transcriber belong to."""
        return {
            "audio": "url" if isinstance(self.source, str) else "file",
            "language": "language",
            "prompt": "prompt",
        }


@router.post("/transcriptions", openapi_extra=schema.TRANSCRIPTION)
async def transcribe(request: Request) -> Response:
    """Transcribe a file, or the audio at a URL."""
    service = life_of(request).service
    try:
        service.refuse_if_full()  # before an upload is read for nothing
    except FullError as error:
        raise from_kit(error, {}) from error
    async with form(request, service.settings) as fields:
        ask = read(fields)
        check_model(ask.model, service.settings)
        wanted = transcriber.Request(ask.source, ask.language, ask.context)
        if ask.stream:
            return await streamed(
                request,
                service,
                wanted,
                fields=ask.names,
                on_text=lambda text: data_of({"type": "transcript.text.delta", "delta": text}),
                on_end=lambda heard: [_done(heard, ask.format)],
            )
        heard = await whole(request, service, wanted, fields=ask.names)
    media_type = MEDIA_TYPES.get(ask.format, "text/plain; charset=utf-8")
    return Response(formats.FORMATS[ask.format].write(heard), media_type=media_type)


def read(fields: Fields) -> Ask:
    """What the form asks for. Raises ApiError, 400, for anything that cannot be honoured."""
    single: dict[str, str | Upload] = {}
    granularities: list[str | Upload] = []
    for name, values in fields.items():
        if name.removesuffix("[]") == GRANULARITIES:
            granularities += values
        elif name not in KNOWN:
            raise refused(name, f"is not known here; possible are {', '.join(sorted(POSSIBLE))}", code="unknown_field")
        elif len(values) > 1:
            raise refused(name, f"is given {len(values)} times, expected once")
        else:
            single[name] = values[0]
    wanted = {name: KNOWN[name](name, value) for name, value in single.items()}
    _check_granularities(granularities, wanted.get("response_format", "json"))
    sources = [wanted[name] for name in ("file", "url") if name in wanted]
    if len(sources) != 1:
        raise refused("file", "give one of file and url", code="missing_field")
    form_of_answer, stream = wanted.get("response_format", "json"), wanted.get("stream", False)
    if stream and form_of_answer not in STREAMED:
        words = f"{form_of_answer} cannot be streamed; possible with stream are {' and '.join(STREAMED)}"
        raise refused("response_format", words)
    return Ask(
        source=sources[0],
        model=wanted.get("model"),
        language=wanted.get("language"),
        context=wanted.get("prompt", ""),
        format=form_of_answer,
        stream=stream,
    )


def _file(name: str, value: str | Upload) -> Upload:
    if isinstance(value, str):
        raise refused(name, "is text, expected a file with a filename")
    return value


def _text(name: str, value: str | Upload) -> str:
    if isinstance(value, Upload):
        raise refused(name, "is a file, expected text")
    return value


def _url(name: str, value: str | Upload) -> str:
    url = _text(name, value)
    if not url.lower().startswith(("http://", "https://")):
        raise refused(name, "expected an http or https URL")
    return url


def _format(name: str, value: str | Upload) -> str:
    wanted = _text(name, value)
    if wanted not in formats.FORMATS:
        raise refused(name, f"{wanted!r} is not possible; possible are {', '.join(formats.FORMATS)}")
    return wanted


def _boolean(name: str, value: str | Upload) -> bool:
    wanted = _text(name, value).lower()
    if wanted not in ("true", "false", "1", "0"):
        raise refused(name, f"{value!r} is not possible; possible are true and false")
    return wanted in ("true", "1")


def _zero(name: str, value: str | Upload) -> float:
    wanted = _text(name, value)
    try:
        if float(wanted) == 0:
            return 0.0
    except ValueError:
        pass
    raise refused(name, f"{wanted!r} is not possible; only 0 is: decoding is greedy")


def _check_granularities(values: list[str | Upload], form_of_answer: str) -> None:
    name = f"{GRANULARITIES}[]"
    for value in values:
        if value != "segment":
            raise refused(name, f"{_text(name, value)!r} is not possible; only segment is")
    if values and form_of_answer != "verbose_json":
        raise refused(name, f"needs response_format verbose_json, which is {form_of_answer}")


KNOWN: dict[str, Callable[[str, str | Upload], Any]] = {
    "file": _file,
    "url": _url,
    "model": _text,
    "language": _text,
    "prompt": _text,
    "response_format": _format,
    "stream": _boolean,
    "temperature": _zero,
}
POSSIBLE = {*KNOWN, GRANULARITIES}


def _done(heard: Transcript, form_of_answer: str) -> str:
    """The last event: it has all that the answer would have without a stream."""
    return data_of({"type": "transcript.text.done", **json.loads(formats.FORMATS[form_of_answer].write(heard))})
