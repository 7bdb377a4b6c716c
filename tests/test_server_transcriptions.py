"""Transcriptions over HTTP, with OpenAI's own client and with requests that it would not send."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import soundfile
from audio_files import made
from recordings import joined
from serving import TRANSCRIPTIONS, Served, served

from runtime.formats import FORMATS
from runtime.measure.clips import Clip
from runtime.server.stored import IN_MEMORY
from runtime.server.transcriptions import POSSIBLE
from runtime.transcriber import Transcriber


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
    assert raw.http_response.text == FORMATS[form].write(transcriber.transcribe(clip.path))


def test_segments_have_times(client: openai.OpenAI, clip: Clip) -> None:
    answer = client.audio.transcriptions.create(
        file=clip.path, model="demo", response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert answer.segments
    assert (answer.segments[0].start, answer.segments[-1].end) == (0, answer.duration)


def test_a_language_is_forced_by_code_and_an_empty_one_is_none(server: Served, clip: Clip) -> None:
    for language in ("en", ""):
        answer = server.post(files={"file": clip.path.read_bytes()}, data={"language": language})
        assert answer.json()["language"] == "English"


def test_text_that_was_cut_says_so(transcriber: Transcriber, clip: Clip) -> None:
    with served(transcriber, max_new_tokens=5) as server:
        answer = server.post(files={"file": clip.path.read_bytes()})
    assert answer.json()["truncated"] is True


def test_all_formats_of_files_are_read(server: Served) -> None:
    for name in ("aac.m4a", "browser.webm", "ffmpeg.mp3", "piped.flac"):
        answer = server.post(files={"file": (name, made(name))})
        assert answer.status_code == 200, answer.text


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "model": ({"model": "whisper-1"}, "model", "demo"),
    "language": ({"language": "Klingon"}, "language", "no language"),
    "prompt": ({"prompt": "<|im_end|>"}, "prompt", "command"),
    "response_format": ({"response_format": "diarized_json"}, "response_format", "verbose_json"),
    "stream": ({"stream": "perhaps"}, "stream", "true and false"),
    "streamed subtitles": ({"stream": "true", "response_format": "srt"}, "response_format", "json"),
    "temperature": ({"temperature": "0.2"}, "temperature", "only 0"),
    "no temperature": ({"temperature": "cold"}, "temperature", "only 0"),
    "nan": ({"temperature": "nan"}, "temperature", "only 0"),
    "words": (
        {"timestamp_granularities[]": ["word", "segment"], "response_format": "verbose_json"},
        "timestamp_granularities[]",
        "only segment",
    ),
    "granularity of json": ({"timestamp_granularities[]": "segment"}, "timestamp_granularities[]", "verbose_json"),
    "unknown": ({"diarize": "true"}, "diarize", "possible are"),
    "include": ({"include[]": "logprobs"}, "include[]", "possible are"),
    "chunking": ({"chunking_strategy": "auto"}, "chunking_strategy", "possible are"),
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
    assert param in error["message"] or name in ("language", "prompt")


def test_the_official_client_raises_its_own_errors(client: openai.OpenAI, clip: Clip) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.audio.transcriptions.create(file=clip.path, model="whisper-1")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(file=clip.path, model="demo", temperature=1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as broken:
        list(client.audio.transcriptions.create(file=("x.wav", b"RIFF"), model="demo", stream=True))
    assert (broken.value.param, broken.value.code) == ("file", "invalid_audio")


BODIES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no audio": ({"files": {"file": ("talk.wav", b"no audio at all")}}, 400, "talk.wav"),
    "empty": ({"files": {"file": ("empty.wav", b"")}}, 400, "0 bytes"),
    "cut short": ({"files": {"file": ("short.wav", made("16 bit.wav")[:2000])}}, 400, "short.wav"),
    "large and broken": ({"files": {"file": ("big.wav", b"\0" * (2 * IN_MEMORY))}}, 400, "big.wav"),
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
    assert len(recording) > IN_MEMORY
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


def test_models_by_the_official_client(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("whisper-1")


def test_info_tells_device_limits_and_languages(server: Served, transcriber: Transcriber) -> None:
    info = server.get("/v1/info").json()
    assert info["device"]["name"] == transcriber.settings.device
    assert info["model"]["names"] == ["demo"]
    assert set(info["model"]["languages"]) == set(transcriber.wording.languages)
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
    assert {name.removesuffix("[]") for name in form["properties"]} == POSSIBLE


def test_nothing_is_left_of_uploads(server: Served, speech: list[Clip]) -> None:
    directory = Path("/proc/self/fd")

    def files() -> set[str]:
        return {str(link.readlink()) for link in directory.iterdir() if link.is_symlink()}

    before = {name for name in files() if "(deleted)" in name}
    server.post(files={"file": speech[0].path.read_bytes() + b"\0" * IN_MEMORY})
    server.post(files={"file": b"\0" * 2 * IN_MEMORY})
    assert {name for name in files() if "(deleted)" in name} == before
