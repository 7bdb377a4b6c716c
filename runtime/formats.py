"""A transcript as a file: text, json, verbose_json, srt or vtt."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime import languages
from runtime.transcript import Segment, Transcript


@dataclass(frozen=True)
class Format:
    """How a transcript is written, and the extension of a file that holds it."""

    extension: str
    write: Callable[[Transcript], str]


def _text(transcript: Transcript) -> str:
    return transcript.text + "\n"


def _json(transcript: Transcript) -> str:
    return _dump(summary(transcript))


def _verbose_json(transcript: Transcript) -> str:
    segments = [
        {
            "id": number,
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "text": segment.hypothesis.text,
            "language": segment.hypothesis.language,
            "token_count": len(segment.tokens),
            "truncated": segment.truncated,
            "repeated_characters": segment.hypothesis.repeated,
        }
        for number, segment in enumerate(transcript.segments)
    ]
    return _dump({"task": "transcribe", **summary(transcript), "segments": segments})


def _srt(transcript: Transcript) -> str:
    cues = [
        f"{number}\n{_time(segment.start, ',')} --> {_time(segment.end, ',')}\n{segment.hypothesis.text}\n"
        for number, segment in enumerate(_spoken(transcript), start=1)
    ]
    return "\n".join(cues)


def _vtt(transcript: Transcript) -> str:
    cues = [
        f"{_time(segment.start, '.')} --> {_time(segment.end, '.')}\n{_escaped(segment.hypothesis.text)}\n"
        for segment in _spoken(transcript)
    ]
    return "\n".join(["WEBVTT\n", *cues])


FORMATS = {
    "text": Format("txt", _text),
    "json": Format("json", _json),
    "verbose_json": Format("json", _verbose_json),
    "srt": Format("srt", _srt),
    "vtt": Format("vtt", _vtt),
}


def summary(transcript: Transcript) -> dict[str, Any]:
    """The transcript's fields without its segments: text, language by name and code, seconds, and what went wrong."""
    return {
        "text": transcript.text,
        "language": transcript.language,
        "language_codes": [languages.code(name) for name in transcript.languages],
        "duration": round(transcript.seconds, 3),
        "tokens": transcript.tokens,
        "truncated": transcript.truncated,
        "repeated_characters": transcript.repeated,
    }


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _spoken(transcript: Transcript) -> list[Segment]:
    """Segments with text; a subtitle without any would only flicker."""
    return [segment for segment in transcript.segments if segment.hypothesis.text]


def _escaped(text: str) -> str:
    """Text as WebVTT wants it: these three characters would begin a tag or an entity (W3C WebVTT, "cue text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, point: str) -> str:
    """Seconds as HH:MM:SS, a decimal point and milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
