"""A transcript as a file: text, json, verbose_json, srt or vtt."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime import languages
from runtime.formats.captions import Caption, captions
from runtime.transcript import Transcript


@dataclass(frozen=True)
class Format:
    """How a transcript is written, the extension of a file that holds it, and whether it says when something is said,
    for which a request has to be `timed`."""

    extension: str
    write: Callable[[Transcript], str]
    timed: bool = False


def _text(transcript: Transcript) -> str:
    return transcript.text + "\n"


def _json(transcript: Transcript) -> str:
    return _dump(summary(transcript))


def _verbose_json(transcript: Transcript) -> str:
    """With the segments of OpenAI's API, and in them the kit's own fields beside OpenAI's."""
    language = {"language": (transcript.languages or [""])[0].lower()}
    segments = [_segment(number, caption) for number, caption in enumerate(captions(transcript))]
    return _dump({"task": "transcribe", **summary(transcript), **language, "segments": segments})


def _segment(number: int, caption: Caption) -> dict[str, Any]:
    """As in Whisper, segments that were decoded together share `seek`, `avg_logprob` and `compression_ratio`. The rest
    has OpenAI's neutral value: decoding is greedy, silence is never decoded, and vLLM is not asked for probabilities.
    """
    decoded = caption.segment
    text = decoded.hypothesis.text.encode()
    return {
        "id": number,
        "seek": round(decoded.start * 100),  # frames of 10 ms
        "start": round(caption.start, 3),
        "end": round(caption.end, 3),
        "text": caption.text,
        "tokens": caption.tokens,
        "temperature": 0.0,
        "avg_logprob": round(decoded.avg_logprob or 0.0, 4),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 3),  # openai/whisper, utils.py
        "no_speech_prob": 0.0,
        "language": (decoded.hypothesis.language or "").lower(),
        "lines": caption.lines,
        "estimated_times": caption.is_estimated,
        "truncated": decoded.truncated,
        "repeated_characters": decoded.hypothesis.repeated,
    }


def _srt(transcript: Transcript) -> str:
    cues = [
        f"{number}\n{_time(caption.start, ',')} --> {_time(caption.end, ',')}\n{_lines(caption)}\n"
        for number, caption in enumerate(captions(transcript), start=1)
    ]
    return "\n".join(cues)


def _vtt(transcript: Transcript) -> str:
    cues = [
        f"{_time(caption.start, '.')} --> {_time(caption.end, '.')}\n{_escaped(_lines(caption))}\n"
        for caption in captions(transcript)
    ]
    return "\n".join(["WEBVTT\n", *cues])


FORMATS = {
    "text": Format("txt", _text),
    "json": Format("json", _json),
    "verbose_json": Format("json", _verbose_json, timed=True),
    "srt": Format("srt", _srt, timed=True),
    "vtt": Format("vtt", _vtt, timed=True),
}


def summary(transcript: Transcript) -> dict[str, Any]:
    """The transcript's fields without its segments: text, language by name and code, seconds, and what went wrong."""
    codes = [languages.code(name) for name in transcript.languages]
    return {
        "text": transcript.text,
        "language": transcript.language,
        "language_codes": codes,
        "languages": [{"code": code} for code in codes if code],  # as OpenAI's gpt-transcribe answers
        "duration": round(transcript.seconds, 3),
        "usage": {"type": "duration", "seconds": round(transcript.seconds, 3)},
        "tokens": transcript.tokens,
        "truncated": transcript.truncated,
        "repeated_characters": transcript.repeated,
        **({"warnings": transcript.warnings} if transcript.warnings else {}),
    }


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _lines(caption: Caption) -> str:
    return "\n".join(caption.lines)


def _escaped(text: str) -> str:
    """Text as WebVTT wants it: these three characters would begin a tag or an entity (W3C WebVTT, "cue text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, point: str) -> str:
    """Seconds as HH:MM:SS, a decimal point and milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
