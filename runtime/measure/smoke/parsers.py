"""Written transcripts read back, strictly: what a program that is given one finds in it."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import PositiveFloat, TypeAdapter, ValidationError

from env.errors import KitError
from runtime import languages

TIME = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)([.,])(\d{3})")
Kind = TypeVar("Kind")


class MalformedDocumentError(KitError):
    """A document that is not of its format."""


@dataclass(frozen=True)
class Cue:
    """A text with its times, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class ParsedTranscript:
    """What a transcript says: only the json formats have a language and a length in `seconds`, text and json no cues,
    which are verbose_json's segments."""

    text: str
    language: str | None = None
    seconds: float = 0.0
    truncated: bool = False
    cues: tuple[Cue, ...] = ()


@dataclass(frozen=True)
class _Summary:
    """What a json transcript must have."""

    text: str
    language: str | None
    duration: PositiveFloat
    truncated: bool


@dataclass(frozen=True)
class _Whole(_Summary):
    """What a verbose_json transcript must have."""

    segments: tuple[Cue, ...]


def read(form: str, written: str) -> ParsedTranscript:
    """What a transcript in one of runtime.formats says. Raises UnreadableError."""
    return READERS[form](written)


def _text(written: str) -> ParsedTranscript:
    return ParsedTranscript(written.strip())


def _json(written: str) -> ParsedTranscript:
    found = _validated("json", _Summary, written)
    return ParsedTranscript(found.text, found.language, found.duration, found.truncated)


def _verbose_json(written: str) -> ParsedTranscript:
    found = _validated("verbose_json", _Whole, written)
    language = languages.resolve(found.language)  # in lower case there
    return ParsedTranscript(found.text, language, found.duration, found.truncated, found.segments)


def _srt(written: str) -> ParsedTranscript:
    cues = []
    for number, block in enumerate(_blocks(written), start=1):
        first, _, rest = block.partition("\n")
        if first != str(number):
            raise MalformedDocumentError("srt", f"cue {number} begins with {first!r} instead of its number")
        cues.append(_cue("srt", rest, ","))
    return _subtitled(cues)


def _vtt(written: str) -> ParsedTranscript:
    head, *blocks = _blocks(written) or [""]
    if head != "WEBVTT":
        raise MalformedDocumentError("vtt", f"begins with {head[:40]!r} instead of WEBVTT")
    cues = [_cue("vtt", block, ".") for block in blocks]
    return _subtitled([Cue(cue.start, cue.end, html.unescape(cue.text)) for cue in cues])


READERS: dict[str, Callable[[str], ParsedTranscript]] = {
    "text": _text,
    "json": _json,
    "verbose_json": _verbose_json,
    "srt": _srt,
    "vtt": _vtt,
}


def _validated(form: str, kind: type[Kind], written: str) -> Kind:
    try:
        return TypeAdapter(kind).validate_json(written)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise MalformedDocumentError(form, f"{field}: {first['msg']}" if field else first["msg"]) from None


def _blocks(written: str) -> list[str]:
    """What empty lines part."""
    return [block for block in written.strip("\n").split("\n\n") if block]


def _cue(form: str, block: str, point: str) -> Cue:
    """A line with two times, and the text below it."""
    line, _, text = block.partition("\n")
    times = [TIME.fullmatch(word) for word in line.split(" --> ")]
    match times:
        case [re.Match() as start, re.Match() as end] if start[4] == end[4] == point and text:
            return Cue(_seconds(start), _seconds(end), text)
    raise MalformedDocumentError(form, f"has {line[:60]!r} instead of a cue's times, with a text below")


def _seconds(time: re.Match[str]) -> float:
    hours, minutes, seconds, milliseconds = (int(time[part]) for part in (1, 2, 3, 5))
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _subtitled(cues: list[Cue]) -> ParsedTranscript:
    return ParsedTranscript(" ".join(cue.text for cue in cues), cues=tuple(cues))
