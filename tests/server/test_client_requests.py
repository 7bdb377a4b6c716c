"""What applications without a library of their own send, byte by byte as they do; tests/clients has the libraries."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from audio_files import RECIPES
from pydantic import SecretStr
from serving import Served, served

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.transcriber import Request, Transcriber

KEY = "sk-of-an-application"
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Part:
    """Of a form: a field with its value, or the recording where `value` is None."""

    disposition: str
    value: str | None = None
    content_type: str = ""
    type_first: bool = False
    length: bool = False

    def encode(self, recording: bytes) -> bytes:
        """The part without its boundary."""
        lines = [f"Content-Disposition: form-data; {self.disposition}"]
        if self.content_type:
            lines.insert(0 if self.type_first else 1, f"Content-Type: {self.content_type}")
        content = recording if self.value is None else self.value.encode()
        if self.length:
            lines.append(f"Content-Length: {len(content)}")
        return "\r\n".join([*lines, "", ""]).encode() + content + b"\r\n"


@dataclass(frozen=True)
class Form:
    """What an application sends, and the recipe of the recording that it is about."""

    parts: tuple[Part, ...]
    recording: str = "16 bit.wav"
    boundary: str = "c0a5e1f64e4bc6b9ae8a3a9d8a7a3f55"
    content_type: str = "multipart/form-data; boundary={}"
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False

    def post(self, server: Served, recordings: dict[str, bytes]) -> httpx.Response:
        """Send it."""
        begin = f"--{self.boundary}\r\n".encode()
        pieces = [begin + part.encode(recordings[self.recording]) for part in self.parts]
        pieces.append(f"--{self.boundary}--\r\n".encode())
        headers = {
            "Authorization": f"Bearer {KEY}",
            "Content-Type": self.content_type.format(self.boundary),
            **dict(self.headers),
        }
        return server.post(content=iter(pieces) if self.chunked else b"".join(pieces), headers=headers)


def field(name: str, value: str) -> Part:
    """A field as most write it."""
    return Part(f'name="{name}"', value)


FORMS = {
    # backend/open_webui/routers/audio.py of Open WebUI 0.7: requests puts fields before files. The model is what the
    # administrator has entered (AUDIO_STT_MODEL), which is nothing at first.
    "Open WebUI": Form(
        (field("model", ""), Part('name="file"; filename="5f1c0d9e-58d4-4a9b-8d3c-0c8f8f6d7a11.webm"')),
        recording="browser.webm",
        headers=(("X-OpenWebUI-User-Name", "Sara"), ("X-OpenWebUI-User-Email", "sara@example.com")),
    ),
    "Open WebUI in a language": Form(
        (
            field("model", "whisper-1"),
            field("language", "en-US"),
            Part('name="file"; filename="5f1c0d9e-58d4-4a9b-8d3c-0c8f8f6d7a11.wav"'),
        )
    ),
    # dify_plugin 0.7.4, interfaces/model/openai_compatible/speech2text.py: whatever the file is, it is called .mp3
    # (core/plugin_executor.py).
    "Dify": Form((field("model", "qwen3-asr"), Part('name="file"; filename="tmp3v1k_b0x.mp3"'))),
    # @n8n/n8n-nodes-langchain 2.41.1, nodes/vendors/OpenAi/v2/actions/audio/transcribe.operation.js: the model cannot
    # be chosen. The boundary is as form-data makes them.
    "n8n": Form(
        (
            field("model", "whisper-1"),
            field("language", "en"),
            field("temperature", "0.7"),
            Part('name="file"; filename="recording.m4a"', content_type="audio/mp4"),
        ),
        recording="aac.m4a",
        boundary="--------------------------515890814546601021194782",
    ),
    # fabio-garavini/ha-openai-whisper-stt-api 1.3.0 for Home Assistant, custom_components/openai_whisper_cloud/stt.py
    "Home Assistant, Whisper Cloud": Form(
        (
            field("model", "whisper-1"),
            field("language", "en"),
            field("temperature", "0.0"),
            field("prompt", ""),
            field("response_format", "json"),
            Part('name="file"; filename="audio.wav"', content_type="audio/wav"),
        )
    ),
    # einToast/openai_stt_ha 1.2.0 for Home Assistant, custom_components/openai_stt/http_client.py: aiohttp's FormData
    "Home Assistant, OpenAI Whisper API": Form(
        (
            Part('name="file"; filename="whisper_audio.wav"', content_type="audio/wav", type_first=True),
            *(
                Part(f'name="{name}"', value, PLAIN, type_first=True)
                for name, value in (
                    ("model", "gpt-4o-mini-transcribe"),
                    ("language", "en"),
                    ("prompt", ""),
                    ("temperature", "0"),
                    ("response_format", "json"),
                )
            ),
        )
    ),
    # Spring AI 1.1, OpenAiAudioApi.createTranscription: every part has a type and a length, the file is always called
    # audio.webm, and unless told otherwise the temperature is 0.7.
    "Spring AI": Form(
        (
            Part('name="file"; filename="audio.webm"', content_type="video/webm", length=True),
            Part('name="model"', "whisper-1", "text/plain;charset=UTF-8", length=True),
            Part('name="response_format"', "json", "text/plain;charset=UTF-8", length=True),
            Part('name="temperature"', "0.7", "application/json", length=True),
        ),
        content_type="multipart/form-data;charset=UTF-8;boundary={}",
        chunked=True,
    ),
    # The official OpenAI package for .NET (Semantic Kernel, Microsoft.Extensions.AI): MultipartFormDataContent quotes
    # the boundary and not the names, and gives file names twice.
    "OpenAI for .NET": Form(
        (
            Part("name=file; filename=audio.wav; filename*=utf-8''audio.wav"),
            Part("name=model", "whisper-1", PLAIN, type_first=True),
            Part("name=language", "en", PLAIN, type_first=True),
            Part("name=response_format", "verbose_json", PLAIN, type_first=True),
            Part("name=temperature", "0.1", PLAIN, type_first=True),
            Part('name="timestamp_granularities[]"', "segment", PLAIN, type_first=True),
        ),
        content_type='multipart/form-data; boundary="{}"',
    ),
}


@pytest.fixture(scope="module")
def clip(speech: list[Clip]) -> Clip:
    """Somebody speaks English."""
    return next(clip for clip in speech if clip.language == "English")


@pytest.fixture(scope="module")
def recordings(clip: Clip, transcriber: Transcriber) -> dict[str, bytes]:
    """The clip in the formats that applications have it in."""
    samples = transcriber.prepare(Request(clip.path)).audio.samples[:, None]
    return {name: RECIPES[name](samples, SAMPLE_RATE) for name in ("16 bit.wav", "browser.webm", "aac.m4a")}


@pytest.fixture(scope="module")
def application(transcriber: Transcriber) -> Iterator[Served]:
    """A server that wants a key, as applications ask for one."""
    with served(transcriber, api_key=SecretStr(KEY)) as server:
        yield server


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of(application: Served, recordings: dict[str, bytes], clip: Clip, name: str) -> None:
    answer = FORMS[name].post(application, recordings)
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == clip.text


def test_what_applications_try_first(application: Served) -> None:
    """They list the models to see whether the key is right, or ask for the one that they are set to."""
    headers = {"Authorization": f"Bearer {KEY}"}
    listed = application.get("/v1/models", headers=headers).json()
    for name in ("whisper-1", listed["data"][0]["id"]):
        found: dict[str, Any] = application.get(f"/v1/models/{name}", headers=headers).json()
        assert found["object"] == "model"
