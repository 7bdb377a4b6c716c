"""Transcriptions as server-sent events, with OpenAI's own client and as bytes."""

import json
from typing import Any

import openai
import pytest
from recordings import joined
from serving import Served, served

from runtime.demo import Clip
from runtime.transcriber import Transcriber


@pytest.fixture(scope="module")
def talk(speech: list[Clip], transcriber: Transcriber) -> bytes:
    """All clips in one file."""
    return joined(speech, transcriber)


def test_a_stream_grows_to_the_text_over_several_segments(
    client: openai.OpenAI, talk: bytes, speech: list[Clip]
) -> None:
    whole = client.audio.transcriptions.create(file=("long.wav", talk), model="demo")
    events = list(client.audio.transcriptions.create(file=("long.wav", talk), model="demo", stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    done = events[-1]
    assert done.type == "transcript.text.done"
    assert "".join(deltas) == done.text == whole.text
    assert len(deltas) > len(speech)
    assert done.to_dict() == {"type": done.type, **whole.to_dict()}


def test_a_verbose_stream_ends_with_segments(transcriber: Transcriber, talk: bytes) -> None:
    file = ("long.wav", talk)
    with served(transcriber, segment_seconds=5) as server, server.client() as client:
        whole = server.post(files={"file": file}, data={"response_format": "verbose_json"}).json()
        # The client's types know no stream of verbose_json; what it sends and reads is the same.
        untyped: Any = client.audio.transcriptions.create
        events = list(untyped(file=file, model="demo", response_format="verbose_json", stream=True))
    *deltas, done = events
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas) == done.text == whole["text"]
    assert done.to_dict() == {"type": "transcript.text.done", **whole}
    assert len(whole["segments"]) > 3


def test_a_stream_is_plain_server_sent_events(server: Served, speech: list[Clip]) -> None:
    answer = server.post(files={"file": speech[0].path.read_bytes()}, data={"stream": "true"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert [event["type"] for event in events[-2:]] == ["transcript.text.delta", "transcript.text.done"]
