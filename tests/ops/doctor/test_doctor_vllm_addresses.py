"""The addresses of ASR_VLLM_URL, as engine and doctor read them: which are understood, who is trusted there, and which
way they are asked."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from fronting import connected
from vllm_server import StandIn, vllm_server

from env.errors import KitError, UsageError
from env.sources import load_settings
from runtime.demo import Clip
from runtime.host.probe import Host
from runtime.ops.doctor.findings import CheckResult, Examination
from runtime.ops.doctor.vllm import engine, servers
from runtime.transcriber import Transcriber

BUNDLE = "REQUESTS_CA_BUNDLE"
HOW = f"{BUNDLE}=FILE names a certificate to trust; for a container, put it into docker/certificates"


@pytest.fixture
def server(transcriber: Transcriber) -> Iterator[StandIn]:
    with vllm_server(transcriber) as stand_in:
        yield stand_in


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The certificate of who signs for 127.0.0.1, with the server's certificate and key in files beside it."""
    signer, path = trustme.CA(), tmp_path / "authority.crt"
    signer.cert_pem.write_to_path(str(path))
    signer.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return path


@pytest.fixture
def secured(transcriber: Transcriber, authority: Path) -> Iterator[StandIn]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.with_name("server.pem"))
    with vllm_server(transcriber, tls=context) as stand_in:
        yield stand_in


def case(urls: str) -> Examination:
    settings = load_settings({"ASR_ENGINE": "vllm", "ASR_VLLM_URL": urls, "ASR_PROFILE": "cpu"})
    return Examination(Host(), settings, quick=False, place="host")


def transcript(urls: str, clip: Clip) -> str:
    with connected(ASR_VLLM_URL=urls) as opened:
        return opened.transcribe(clip.path).text


@pytest.mark.parametrize("end", ["/", "/v1", "/v1/"])
def test_the_address_that_openai_clients_want_is_understood(server: StandIn, speech: list[Clip], end: str) -> None:
    assert transcript(server.url + end, speech[0]) == speech[0].text
    assert servers(case(server.url + end)) == CheckResult("pass", f"{server.url}: vLLM 0.18.0, demo, 4096 tokens")


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        ("http://a:8000,http://a:8000/v1", "names http://a:8000 twice"),
        ("http://me:secret@a:8000", "http://a:8000: expected host and port, no more"),
        ("http://a:8000/?x=secret", "expected host and port"),
        ("http://a:80000", "no address: Port out of range"),
        ("http://[::1:8000", "no address: Invalid IPv6 URL"),
        ("http://[::1]x:80", "expected host and port"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(urls: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught, connected(ASR_VLLM_URL=urls):
        pass
    for examine in engine, servers:
        assert examine(case(urls)) == CheckResult("fail", f"ASR_VLLM_URL: {caught.value.reason}", caught.value.advice)
    assert reason in caught.value.reason
    assert "secret" not in str(caught.value)


def test_proxies_are_passed_by(server: StandIn, speech: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert transcript(server.url, speech[0]) == speech[0].text
    assert servers(case(server.url)) == CheckResult("pass", f"{server.url}: vLLM 0.18.0, demo, 4096 tokens")


def test_https_with_whoever_is_trusted(
    secured: StandIn, authority: Path, speech: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUNDLE, str(authority))
    assert transcript(secured.url, speech[0]) == speech[0].text
    assert servers(case(secured.url)) == CheckResult("pass", f"{secured.url}: vLLM 0.18.0, demo, 4096 tokens")


def test_https_with_a_stranger_is_refused(secured: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BUNDLE, raising=False)
    words = "cannot be trusted: .*certificate verify failed"
    with pytest.raises(KitError, match=words) as caught, connected(secured):
        pass
    found = servers(case(secured.url))
    assert found
    assert (found.status, found.fix, caught.value.advice) == ("fail", HOW, HOW)
    assert found.evidence.startswith(f"{secured.url}: TLS: ")


def test_a_bundle_that_is_not_there_is_told(secured: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUNDLE, str(tmp_path / "lost.crt"))
    with pytest.raises(UsageError, match=r"lost\.crt is no file") as caught, connected(secured):
        pass
    assert servers(case(secured.url)) == CheckResult("fail", f"{BUNDLE}: {caught.value.reason}", caught.value.advice)
