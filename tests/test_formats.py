"""A transcript in each format, read back by what reads it."""

import json

from runtime.formats import FORMATS
from runtime.transcript import Hypothesis, Segment, Transcript

TALK = Transcript(
    "talk.wav",
    3725.5,
    (
        Segment(0.0, 1.25, Hypothesis("English", "fish & <chips>"), (5, 6, 7)),
        Segment(1.25, 3.0, Hypothesis(None, "")),
        Segment(3599.9996, 3725.5, Hypothesis("Chinese", "你好", repeated=40), (8,), truncated=True),
    ),
)


def test_text() -> None:
    assert FORMATS["text"].write(TALK) == "fish & <chips>你好\n"


def test_json() -> None:
    assert json.loads(FORMATS["json"].write(TALK)) == {
        "text": "fish & <chips>你好",
        "language": "English,Chinese",
        "language_codes": ["en", "zh"],
        "duration": 3725.5,
        "tokens": 4,
        "truncated": True,
        "repeated_characters": 40,
    }


def test_verbose_json_has_every_segment() -> None:
    content = json.loads(FORMATS["verbose_json"].write(TALK))
    assert [(s["id"], s["start"], s["end"], s["text"], s["language"]) for s in content["segments"]] == [
        (0, 0.0, 1.25, "fish & <chips>", "English"),
        (1, 1.25, 3.0, "", None),
        (2, 3600.0, 3725.5, "你好", "Chinese"),
    ]
    assert [s["truncated"] for s in content["segments"]] == [False, False, True]
    assert content["segments"][2]["repeated_characters"] == 40


def test_srt_leaves_silence_out() -> None:
    assert FORMATS["srt"].write(TALK) == (
        "1\n00:00:00,000 --> 00:00:01,250\nfish & <chips>\n\n2\n01:00:00,000 --> 01:02:05,500\n你好\n"
    )


def test_vtt_escapes_what_would_be_a_tag() -> None:
    assert FORMATS["vtt"].write(TALK) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nfish &amp; &lt;chips&gt;\n\n01:00:00.000 --> 01:02:05.500\n你好\n"
    )


def test_silence_in_every_format() -> None:
    silence = Transcript("quiet.wav", 1.0, (Segment(0, 1, Hypothesis(None, "")),))
    written = {name: form.write(silence) for name, form in FORMATS.items()}
    assert written["text"] == "\n"
    assert written["srt"] == ""
    assert written["vtt"].strip() == "WEBVTT"
    assert json.loads(written["json"])["language"] is None
