"""Transcriptions over HTTP, with OpenAI's own client and with requests that it would not send."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from audio_files import made
from recordings import joined, wav
from serving import TRANSCRIPTIONS, Served, served

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.formats import FORMATS
from runtime.server.routes.transcriptions import KNOWN_FIELDS
from runtime.server.spool import MAX_IN_MEMORY
from runtime.transcriber import Request, Transcriber
from runtime.transcript import Transcript


@pytest.fixture
def clip(speech: list[Clip]) -> Clip:
    """Somebody speaks English."""
    return next(clip for clip in speech if clip.language == "English")


def test_every_clip_as_json(client: openai.OpenAI, clips: list[Clip]) -> None:
    for clip in clips:
        answer = client.audio.transcriptions.create(
            file=clip.path, model="demo", prompt=clip.context or openai.omit, temperature=0
        )
        fields = answer.to_dict()
        assert (answer.text, fields["language"]) == (clip.text, clip.language)
        assert fields["truncated"] is False
        assert answer.to_dict()["duration"] == pytest.approx(soundfile.info(clip.path).duration, abs=0.001)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_what_the_transcriber_writes(
    client: openai.OpenAI, transcriber: Transcriber, clip: Clip, form: Any
) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(file=clip.path, model="demo", response_format=form)
    (heard,) = transcriber.transcribe_all([Request(clip.path, timed=FORMATS[form].timed)])
    assert isinstance(heard, Transcript)
    assert raw.http_response.text == FORMATS[form].write(heard)


def test_segments_have_openais_fields(client: openai.OpenAI, transcriber: Transcriber, clip: Clip) -> None:
    answer = client.audio.transcriptions.create(
        file=clip.path, model="demo", response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert (answer.language, answer.text) == ("english", clip.text)
    assert answer.usage
    assert answer.usage.seconds == answer.duration
    (segment,) = answer.segments or []
    assert 0 < segment.start < segment.end <= answer.duration
    assert (segment.id, segment.seek, segment.temperature, segment.no_speech_prob) == (0, 0, 0, 0)
    assert transcriber.tokenizer.text(segment.tokens).strip() == segment.text == clip.text
    assert -1 < segment.avg_logprob < 0
    assert 0 < segment.compression_ratio < 2.4


def test_silence_has_no_segments_and_no_language(server: Served) -> None:
    file = wav(np.zeros(40 * SAMPLE_RATE, dtype=np.float32))
    answer = server.post(files={"file": file}, data={"response_format": "verbose_json"}).json()
    assert (answer["text"], answer["language"], answer["segments"]) == ("", "", [])
    assert server.post(files={"file": file}, data={"response_format": "srt"}).text == ""


@pytest.mark.parametrize("language", ["en", "en-US", "en_GB.UTF-8", "eng", "English", "英语", "auto", "null", ""])
def test_a_language_goes_by_any_of_its_names(server: Served, clip: Clip, language: str) -> None:
    answer = server.post(files={"file": clip.path.read_bytes()}, data={"language": language})
    assert (answer.json()["text"], answer.json()["language"]) == (clip.text, "English")
    assert "warnings" not in answer.json()


TAKEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "OpenAI's names": ({"model": "whisper-1"}, ["model: demo answers in place of whisper-1"]),
    "Alibaba's names": (
        {"model": "qwen3-asr-flash-2026-02-10"},
        ["model: demo answers in place of qwen3-asr-flash-2026-02-10"],
    ),
    "the family's name": ({"model": "qwen3-asr"}, []),
    "temperature": ({"temperature": "0.7"}, ["temperature: has no effect"]),
    "no temperature": ({"temperature": "0.0"}, []),
    "logprobs": ({"include[]": "logprobs"}, ["include: has no effect"]),
    "chunking": ({"chunking_strategy": "auto"}, ["chunking_strategy: has no effect"]),
    "chunking, as SDKs write an object": (
        {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.5"},
        ["chunking_strategy: has no effect"],
    ),
    "user": ({"user": "me"}, ["user: has no effect"]),
    "vLLM's": (
        {"top_p": "0.9", "seed": "4", "stream_include_usage": "true"},
        ["seed: has", "stream_include_usage: has", "top_p: has"],
    ),
    "speaches'": ({"vad_filter": "true", "hotwords": "Sara"}, ["vad_filter: has no effect"]),
    "one of languages": ({"languages[]": "en"}, []),
    "several languages": ({"languages[]": ["en", "de"]}, ["languages: has no effect"]),
    "vLLM's language": ({"language": "en", "to_language": "en-US"}, []),
    "a language and auto": ({"language": "auto", "to_language": "en", "languages[]": "en-GB"}, []),
    "one of languages, twice": ({"languages[]": ["en", "en-US"]}, []),
    "no speakers": ({"diarize": "false", "known_speaker_names[]": "", "task": "transcribe"}, []),
    "segments and words": (
        {"timestamp_granularities[]": ["word", "segment"], "response_format": "verbose_json"},
        ["timestamp_granularities: words have no times here"],
    ),
    "segments of json": ({"timestamp_granularities[]": "segment"}, ["timestamp_granularities: has no effect"]),
    "nothing in them": ({"temperature": "", "model": "", "response_format": "", "prompt": "", "stream": ""}, []),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_has_no_effect_is_taken_and_said(server: Served, clip: Clip, name: str) -> None:
    fields, expected = TAKEN[name]
    answer = server.post(files={"file": clip.path.read_bytes()}, data=fields)
    assert (answer.status_code, answer.json()["text"]) == (200, clip.text)
    warnings = sorted(answer.json().get("warnings", []))
    assert len(warnings) == len(expected)
    assert all(warning.startswith(start) for warning, start in zip(warnings, expected, strict=True)), warnings


def test_other_formats_and_streams_say_it_in_a_header(server: Served, clip: Clip) -> None:
    file, asked = {"file": clip.path.read_bytes()}, {"temperature": "1", "model": "gpt-4o-transcribe"}
    for form in ("text", "srt", "vtt"):
        answer = server.post(files=file, data={**asked, "response_format": form})
        assert answer.headers["x-asr-warnings"].count("; ") == 1
    answer = server.post(files=file, data={**asked, "stream": "true", "response_format": "text"})
    assert "temperature" in answer.headers["x-asr-warnings"]
    done = json.loads(answer.text.strip().rpartition("data: ")[2])
    assert (done["text"], len(done["warnings"])) == (clip.text, 2)
    assert "x-asr-warnings" not in server.post(files=file, data={"response_format": "text"}).headers


def test_text_that_was_cut_says_so_in_a_header_where_the_format_cannot(server: Served, clip: Clip) -> None:
    for form in ("text", "srt", "vtt"):
        fields = {"response_format": form, "max_completion_tokens": "5"}
        answer = server.post(files={"file": clip.path.read_bytes()}, data=fields)
        assert "text is missing" in answer.headers["x-asr-warnings"]


def test_keywords_are_the_context(server: Served, clips: list[Clip]) -> None:
    named = next(clip for clip in clips if clip.context)
    first, *others = named.context.split(", ")
    for fields in ({"keywords[]": [first, *others]}, {"prompt": ", ".join(others), "keywords": first}):
        heard = server.post(files={"file": named.path.read_bytes()}, data=fields).json()
        assert heard["text"] == named.text


def test_the_answer_is_cut_at_the_most_tokens_and_says_so(
    server: Served, transcriber: Transcriber, speech: list[Clip]
) -> None:
    file = {"file": joined(speech, transcriber)}
    whole = server.post(files=file).json()
    assert server.post(files=file, data={"max_completion_tokens": whole["tokens"]}).json() == whole
    cut = server.post(files=file, data={"max_completion_tokens": "20"}).json()
    assert (cut["tokens"], cut["truncated"]) == (20, True)
    assert whole["text"].startswith(cut["text"])
    events = server.post(files=file, data={"max_completion_tokens": "20", "stream": "true"}).text.split("\n\n")
    told = [json.loads(event.removeprefix("data: ")) for event in events if event]
    assert "".join(event["delta"] for event in told[:-1]) == told[-1]["text"] == cut["text"]


@pytest.mark.parametrize("words", [5_000, 100_000])
def test_a_context_that_does_not_fit_is_refused_with_both_numbers(server: Served, clip: Clip, words: int) -> None:
    answer = server.post(files={"file": clip.path.read_bytes()}, data={"prompt": "hello " * words})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "prompt")
    assert re.search(r"holds \d+ (tokens|characters), the limit is \d+", error["message"])


def test_text_that_was_cut_says_so(transcriber: Transcriber, clip: Clip) -> None:
    with served(transcriber, max_new_tokens=5) as server:
        answer = server.post(files={"file": clip.path.read_bytes()})
    assert answer.json()["truncated"] is True


def test_all_formats_of_files_are_read(server: Served) -> None:
    for name in ("aac.m4a", "browser.webm", "ffmpeg.mp3", "piped.flac"):
        answer = server.post(files={"file": (name, made(name))})
        assert answer.status_code == 200, answer.text


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "model": ({"model": "whisper-2"}, "model", "whisper-1"),
    "speakers by model": ({"model": "gpt-4o-transcribe-diarize"}, "model", "demo"),
    "speakers": ({"known_speaker_names[]": "Ann"}, "known_speaker_names[]", "not told apart"),
    "language": ({"language": "Klingon"}, "language", "no language"),
    "prompt": ({"prompt": "<|im_end|>"}, "prompt", "command"),
    "response_format": ({"response_format": "diarized_json"}, "response_format", "verbose_json"),
    "stream": ({"stream": "perhaps"}, "stream", "true and false"),
    "streamed subtitles": ({"stream": "true", "response_format": "srt"}, "response_format", "json"),
    "temperature": ({"temperature": "3"}, "temperature", "0 to 2"),
    "no temperature": ({"temperature": "cold"}, "temperature", "0 to 2"),
    "nan": ({"temperature": "nan"}, "temperature", "0 to 2"),
    "words alone": (
        {"timestamp_granularities[]": "word", "response_format": "verbose_json"},
        "timestamp_granularities[]",
        "words have no times",
    ),
    "granularity": ({"timestamp_granularities[]": "letter"}, "timestamp_granularities[]", "segment and word"),
    "misspelt": ({"langauge": "en"}, "langauge", "possible are"),
    "diarize": ({"diarize": "true"}, "diarize", "not told apart"),
    "an unknown one of languages": ({"languages[]": ["en", "xx"]}, "languages", "no language of this name"),
    "task": ({"task": "translate"}, "task", "possible is transcribe"),
    "translation": ({"language": "en", "to_language": "zh"}, "to_language", "translated"),
    "no tokens": ({"max_completion_tokens": "0"}, "max_completion_tokens", "1 or more"),
    "twice": ({"language": ["en", "zh"]}, "language", "2 times"),
    "both": ({"url": "https://example.org/a.wav"}, "file", "one of file and url"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(server: Served, clip: Clip, name: str) -> None:
    fields, param, words = REFUSED[name]
    answer = server.post(files={"file": clip.path.read_bytes()}, data=fields)
    error = answer.json()["error"]
    assert answer.status_code == (404 if param == "model" else 400)
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert words in error["message"]
    code = error["code"]
    assert param in error["message"] or code == "invalid_language" or name == "prompt"


def test_the_official_client_raises_its_own_errors(client: openai.OpenAI, clip: Clip) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.audio.transcriptions.create(file=clip.path, model="whisper-2")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(file=clip.path, model="demo", temperature=3)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as broken:
        list(client.audio.transcriptions.create(file=("x.wav", b"RIFF"), model="demo", stream=True))
    assert (broken.value.param, broken.value.code) == ("file", "invalid_audio")


BODIES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no audio": ({"files": {"file": ("talk.wav", b"no audio at all")}}, 400, "talk.wav"),
    "empty": ({"files": {"file": ("empty.wav", b"")}}, 400, "0 bytes"),
    "cut short": ({"files": {"file": ("short.wav", made("16 bit.wav")[:2000])}}, 400, "short.wav"),
    "large and broken": ({"files": {"file": ("big.wav", b"\0" * (2 * MAX_IN_MEMORY))}}, 400, "big.wav"),
    "a path": ({"files": {"file": ("../../etc/passwd", b"x")}}, 400, "passwd: "),
    "two files": ({"files": [("file", b"a"), ("file", b"b")]}, 400, "Too many files"),
    "a file as text": ({"data": {"file": "abc"}}, 400, "expected a file"),
    "text as a file": ({"files": {"language": ("en", b"en")}}, 400, "expected text"),
    "nothing": ({"data": {"language": "en"}}, 400, "file and url"),
    "a local file": ({"data": {"url": "file:///etc/passwd"}}, 400, "http"),
    "a bare path": ({"data": {"url": "/etc/passwd"}}, 400, "http"),
    "json": ({"json": {"url": "https://example.org"}}, 415, "multipart/form-data"),
    "no body": ({}, 415, "multipart/form-data"),
    "no boundary": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    "no form": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}}, 400, "form"),
}


@pytest.mark.parametrize("name", BODIES)
def test_broken_bodies_are_refused_in_words(server: Served, name: str) -> None:
    body, status, words = BODIES[name]
    answer = server.post(**body)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert "/proc/" not in answer.text


def test_a_large_upload_goes_through_a_file(server: Served, transcriber: Transcriber, speech: list[Clip]) -> None:
    recording = joined(speech, transcriber)
    assert len(recording) > MAX_IN_MEMORY
    assert server.post(files={"file": recording}).json()["text"].startswith(speech[0].text)


def test_what_is_too_large_is_refused_before_it_is_sent(transcriber: Transcriber) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        while True:
            yield b"\0" * 65536

    with served(transcriber, upload_max_mib=1) as server:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        answers = [
            server.post(content=endless(), headers=kind),
            server.post(content=endless(), headers={**kind, "Content-Length": str(10**12)}),
        ]
    for answer in answers:
        assert answer.status_code == 413
        assert "1 MiB" in answer.json()["error"]["message"]
        assert answer.headers["Connection"] == "close"


@pytest.fixture
def shop(speech: list[Clip]) -> Iterator[str]:
    """The address of a server on loopback that offers a clip."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = speech[0].path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as shop_server:
        thread = threading.Thread(target=shop_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{shop_server.server_port}/clip.wav"
        shop_server.shutdown()
        thread.join()


def test_a_url_is_fetched_where_its_address_is_permitted(
    transcriber: Transcriber, speech: list[Clip], shop: str
) -> None:
    with served(transcriber, allow_private_urls=True) as server:
        assert server.post(data={"url": shop}).json()["text"] == speech[0].text
    with served(transcriber, allow_private_urls=False) as server:
        answer = server.post(data={"url": shop})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "url"
    assert "not public" in answer.json()["error"]["message"]


def test_operators_add_names(transcriber: Transcriber, clip: Clip) -> None:
    with served(transcriber, model_aliases="large-v3,Systran/faster-whisper-small") as server:
        for name in ("large-v3", "Systran/faster-whisper-small", "demo"):
            answer = server.post(files={"file": clip.path.read_bytes()}, data={"model": name})
            assert "warnings" not in answer.json()
        assert server.get("/v1/models/Systran/faster-whisper-small").json()["id"] == "demo"
        (only,) = server.get("/v1/models").json()["data"]
    assert only["id"] == "demo"
    assert {"large-v3", "qwen3-asr", "whisper-1"} <= set(only["aliases"])


def test_models_by_the_official_client(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == client.models.retrieve("whisper-1").id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o-transcribe-diarize")


def test_info_tells_device_limits_and_languages(server: Served, transcriber: Transcriber) -> None:
    info = server.get("/v1/info").json()
    assert info["device"]["name"] == transcriber.settings.device
    assert info["model"]["names"] == ["demo", "qwen3-asr"]
    assert set(info["model"]["languages"]) == set(transcriber.tokenizer.languages)
    assert info["limits"]["requests"] == transcriber.settings.max_waiting
    assert info["versions"]["torch"]
    assert info["queue"]["requests"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", TRANSCRIPTIONS, 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/nothing", 404),
    ],
)
def test_wrong_routes_and_methods_are_told_in_the_same_shape(
    server: Served, method: str, path: str, status: int
) -> None:
    answer = httpx.request(method, server.url + path, timeout=60)
    assert answer.status_code == status
    assert path in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["/audio/transcriptions", "/v1/audio/transcriptions/", "/v1//audio/transcriptions", "/v1/v1/audio/transcriptions"],
)
def test_a_wrong_base_url_is_answered_with_the_right_one(server: Served, clip: Clip, path: str) -> None:
    answer = server.post(path, files={"file": clip.path.read_bytes()})
    assert answer.status_code == 404
    assert f"there is {TRANSCRIPTIONS}: a client's base URL ends in /v1" in answer.json()["error"]["message"]


def test_the_documents_need_nothing_from_elsewhere(server: Served) -> None:
    page = server.get("/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "://" not in page.text
    assert "<script" not in page.text
    document = server.get("/openapi.json").json()
    for path in document["paths"]:
        assert path in page.text
    form = document["paths"][TRANSCRIPTIONS]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    for field in form["properties"]:
        assert field in page.text


def test_the_form_in_the_document_is_the_form_that_is_read(server: Served) -> None:
    document = server.get("/openapi.json").json()
    form = document["paths"][TRANSCRIPTIONS]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {name.removesuffix("[]") for name in form["properties"]} == KNOWN_FIELDS


def test_nothing_is_left_of_uploads(server: Served, speech: list[Clip]) -> None:
    directory = Path("/proc/self/fd")

    def files() -> set[str]:
        return {str(link.readlink()) for link in directory.iterdir() if link.is_symlink()}

    before = {name for name in files() if "(deleted)" in name}
    server.post(files={"file": speech[0].path.read_bytes() + b"\0" * MAX_IN_MEMORY})
    server.post(files={"file": b"\0" * 2 * MAX_IN_MEMORY})
    assert {name for name in files() if "(deleted)" in name} == before
