"""The server's API with a vLLM that it has started itself: it answers what it answers with the transformers engine."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from realtime_client import RealtimeClient, spoken
from recordings import joined
from serving import served
from websockets.sync.client import connect

from env.sources import load_settings
from runtime.demo import Clip
from runtime.formats import FORMATS
from runtime.transcriber import Transcriber, open_transcriber

from .program import Program

CLIENTS = 32


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with program.client() as connected:
        yield connected


@pytest.fixture(scope="module")
def talk(clips: list[Clip], measure: Transcriber) -> bytes:
    """All clips in one file."""
    return joined(clips, measure)


def test_every_clip_with_its_hotwords_and_in_its_language(client: openai.OpenAI, clips: list[Clip]) -> None:
    for clip in clips:
        answer = client.audio.transcriptions.create(file=clip.path, model="demo", prompt=clip.context or openai.omit)
        fields = answer.to_dict()
        assert (answer.text, fields["language"], fields["truncated"]) == (clip.text, clip.language, False)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_over_several_segments(
    client: openai.OpenAI, measure: Transcriber, talk: bytes, form: Any
) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        file=("talk.wav", talk), model="demo", response_format=form
    )
    expected = measure.transcribe(talk)
    assert raw.http_response.text == FORMATS[form].write(expected)
    assert len(expected.segments) > 3


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_language_is_forced(program: Program, measure: Transcriber, speech: list[Clip], language: str) -> None:
    for clip in speech:
        answer = program.post(files={"file": clip.path.read_bytes()}, data={"language": language}).json()
        expected = measure.transcribe(clip.path, language=language)
        assert (answer["text"], answer["language"]) == (expected.text, expected.language)


def test_a_context_changes_what_is_heard(program: Program, measure: Transcriber, clips: list[Clip]) -> None:
    for clip in clips:
        if clip.context:
            file = {"file": clip.path.read_bytes()}
            without, given = (program.post(files=file, data=data).json() for data in ({}, {"prompt": clip.context}))
            assert given["text"] == clip.text != without["text"] == measure.transcribe(clip.path).text


def test_a_stream_grows_to_the_text(
    client: openai.OpenAI, talk: bytes, measure: Transcriber, speech: list[Clip]
) -> None:
    told = 0
    for sound in (talk, *(clip.path.read_bytes() for clip in speech)):
        events = list(client.audio.transcriptions.create(file=("sound.wav", sound), model="demo", stream=True))
        deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
        done = events[-1]
        assert done.type == "transcript.text.done"
        assert "".join(deltas) == done.text == measure.transcribe(sound).text
        told += len(deltas)
    segments = len(measure.transcribe(talk).segments) + len(speech)
    assert told > segments, "each came as a whole: the demo model is fast, but hardly that fast each time"


def test_many_at_once_of_all_lengths(program: Program, measure: Transcriber, clips: list[Clip], talk: bytes) -> None:
    sounds = [talk, joined(clips[:2], measure), *(clip.path.read_bytes() for clip in clips)]
    expected = [measure.transcribe(sound).text for sound in sounds]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda number: program.post(files={"file": sounds[number % len(sounds)]}), range(96)))
    assert [answer.json().get("text") for answer in answers] == [expected[k % len(sounds)] for k in range(96)]


def test_somebody_speaks(program: Program, measure: Transcriber, speech: list[Clip]) -> None:
    said = [speech[0], speech[-1]]
    address = f"{program.url.replace('http', 'ws', 1)}/v1/realtime"
    with connect(address, proxy=None, compression=None) as connection:
        talk = RealtimeClient(connection)
        assert talk.next()["type"] == "session.created"
        talk.set(format={"rate": 16000})
        talk.append(spoken(measure, said))
        ends = [talk.wait("conversation.item.input_audio_transcription.completed") for _ in said]
        assert [end["transcript"] for end in ends] == [talk.transcript_of(end["item_id"]) for end in ends]
        assert [end["transcript"] for end in ends] == [clip.text for clip in said]


def test_what_serves_is_told(program: Program) -> None:
    told = program.get("/v1/info").json()
    (server,) = told["engine"]["servers"]
    assert (told["engine"]["name"], server["trouble"]) == ("vllm", "")
    assert server["url"].startswith("http://127.0.0.1:")
    assert "vLLM 0.18" in told["device"]["description"]
    families = {family.name: family for family in text_string_to_metric_families(program.get("/metrics").text)}
    assert families["asr_info"].samples[0].labels["engine"] == "vllm"
    (up,) = families["asr_vllm_up"].samples
    assert (up.labels["server"], up.value) == (server["name"], 1) == ("vLLM on cpu", 1)


def test_text_that_was_cut_says_so(program: Program, speech: list[Clip]) -> None:
    url = program.get("/v1/info").json()["engine"]["servers"][0]["url"]
    settings = load_settings(
        {"ASR_DEVICE": "cpu", "ASR_ENGINE": "vllm", "ASR_VLLM_URL": url, "ASR_MAX_NEW_TOKENS": "5"}
    )
    with open_transcriber(settings) as elsewhere, served(elsewhere) as server:
        answer = server.post(files={"file": speech[0].path.read_bytes()})
    assert answer.json()["truncated"] is True
    assert speech[0].text.startswith(answer.json()["text"])
