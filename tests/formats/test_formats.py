"""A transcript in each format, read back by what reads it."""

import json

from runtime.formats import FORMATS
from runtime.transcript import Hypothesis, Segment, Span, Transcript

TALK = Transcript(
    "talk.wav",
    3725.5,
    (
        Segment(
            0.0,
            3.0,
            Hypothesis("English", "fish & <chips>"),
            (4, 5, 6, 7),
            avg_logprob=-0.25,
            speech=(Span(0.5, 1.75),),
            token_ends=(0, 4, 6, 14),
        ),
        Segment(3.0, 30.0, Hypothesis(None, "")),
        Segment(
            3595.0,
            3725.5,
            Hypothesis("Chinese", "你好", repeated=40),
            (8,),
            truncated=True,
            speech=(Span(3599.9996, 3605.0),),
            token_ends=(2,),
        ),
    ),
    warnings=("temperature: has no effect: decoding is greedy",),
)


def test_text() -> None:
    assert FORMATS["text"].write(TALK) == "fish & <chips>你好\n"


def test_json() -> None:
    assert json.loads(FORMATS["json"].write(TALK)) == {
        "text": "fish & <chips>你好",
        "language": "English,Chinese",
        "language_codes": ["en", "zh"],
        "languages": [{"code": "en"}, {"code": "zh"}],
        "duration": 3725.5,
        "usage": {"type": "duration", "seconds": 3725.5},
        "tokens": 5,
        "truncated": True,
        "repeated_characters": 40,
        "warnings": ["temperature: has no effect: decoding is greedy"],
    }


def test_verbose_json_has_openais_segments_and_the_kits_own_fields() -> None:
    content = json.loads(FORMATS["verbose_json"].write(TALK))
    assert (content["language"], content["language_codes"]) == ("english", ["en", "zh"])
    assert content["segments"] == [
        {
            "id": 0,
            "seek": 0,
            "start": 0.5,
            "end": 1.75,
            "text": "fish & <chips>",
            "tokens": [5, 6, 7],
            "temperature": 0.0,
            "avg_logprob": -0.25,
            "compression_ratio": 0.636,
            "no_speech_prob": 0.0,
            "language": "english",
            "lines": ["fish & <chips>"],
            "estimated_times": False,
            "truncated": False,
            "repeated_characters": 0,
        },
        {
            "id": 1,
            "seek": 359500,
            "start": 3600.0,
            "end": 3605.0,
            "text": "你好",
            "tokens": [8],
            "temperature": 0.0,
            "avg_logprob": 0.0,
            "compression_ratio": 0.429,
            "no_speech_prob": 0.0,
            "language": "chinese",
            "lines": ["你好"],
            "estimated_times": False,
            "truncated": True,
            "repeated_characters": 40,
        },
    ]


def test_srt_leaves_silence_out() -> None:
    assert FORMATS["srt"].write(TALK) == (
        "1\n00:00:00,500 --> 00:00:01,750\nfish & <chips>\n\n2\n01:00:00,000 --> 01:00:05,000\n你好\n"
    )


def test_vtt_escapes_what_would_be_a_tag() -> None:
    assert FORMATS["vtt"].write(TALK) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.750\nfish &amp; &lt;chips&gt;\n\n01:00:00.000 --> 01:00:05.000\n你好\n"
    )


def test_silence_in_every_format() -> None:
    silence = Transcript("quiet.wav", 1.0, (Segment(0, 1, Hypothesis(None, "")),))
    written = {name: form.write(silence) for name, form in FORMATS.items()}
    assert written["text"] == "\n"
    assert written["srt"] == ""
    assert written["vtt"].strip() == "WEBVTT"
    assert json.loads(written["json"])["language"] is None
    verbose = json.loads(written["verbose_json"])
    assert (verbose["language"], verbose["segments"]) == ("", [])
