"""Downloads from real servers on the loopback."""

import base64
import ssl
from pathlib import Path

import pytest
from audio_files import made
from strangers import Handler, get, refusal, self_signed, serving

from runtime.audio import AudioError, Limits, load
from runtime.audio.download import FetchError
from runtime.urls import redact_url


def test_the_body_comes_as_it_is() -> None:
    body = bytes(range(256)) * 1000
    with serving(lambda handler: handler.reply(body)) as server:
        assert get(server.url + "/a file.wav?key=1 2&x=%20#part") == body
        path, headers = server.requests[0]
    assert path == "/a%20file.wav?key=1%202&x=%20"
    assert headers["Host"] == server.url.removeprefix("http://")
    assert "Authorization" not in headers


def test_a_chunked_body_comes_whole() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    with serving(answer) as server:
        assert get(server.url) == b"hello world"


def test_a_body_of_undeclared_length_ends_with_the_connection() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"hello")

    with serving(answer) as server:
        assert get(server.url) == b"hello"


def test_credentials_are_sent_and_not_shown() -> None:
    with serving(lambda handler: handler.reply(status=403)) as server:
        url = server.url.replace("http://", "http://me:s%40cret@") + "/clip.wav?token=hidden"
        reason = refusal(url)
        headers = server.requests[0][1]
    assert reason == "answers 403 Forbidden"
    assert redact_url(url) == server.url + "/clip.wav?…"
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"me:s@cret"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    def answer(handler: Handler) -> None:
        if handler.path == "/there/ü":
            handler.reply(b"here")
        elif handler.path == "/there/%C3%BC":
            handler.reply(b"found")
        else:
            handler.reply(status=status, Location="/there/ü".encode().decode("latin-1"))

    with serving(answer) as server:
        assert get(server.url) == b"found"


# https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("https"), "localhost")


def test_https_checks_the_certificate_for_the_name(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(lambda handler: handler.reply(b"secured"), context=context) as server:
        by_name = server.url.replace("127.0.0.1", "localhost")
        assert "certificate verify failed" in refusal(by_name)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        assert get(by_name) == b"secured"
        assert "certificate verify failed" in refusal(server.url)


# Together with the rest


def test_audio_comes_from_a_url() -> None:
    limits = Limits(allow_private_urls=True)
    with serving(lambda handler: handler.reply(made("ffmpeg.mp3"))) as server:
        audio = load(server.url + "/speech.mp3?key=hidden", limits=limits)
        assert audio.seconds == pytest.approx(1.5, abs=0.05)
        assert audio.source == server.url + "/speech.mp3?…"
        with pytest.raises(FetchError, match="not public"):
            load(server.url, limits=Limits())
        with pytest.raises(FetchError, match="the limit is 100"):
            load(server.url, limits=Limits(allow_private_urls=True, url_bytes=100))
    with serving(lambda handler: handler.reply(b"<html>sign in</html>")) as server, pytest.raises(AudioError) as caught:
        load(server.url + "/speech.mp3", limits=limits)
    assert caught.value.subject == server.url + "/speech.mp3"
