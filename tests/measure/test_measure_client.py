"""A client of a running server: what it hands on, and what it says of servers that refuse, fail or are none."""

import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from proxying import dead_proxies, forget_proxies, proxying
from serving import Served, held, served

from env.errors import KitError, UsageError
from runtime.demo import Clip
from runtime.formats import FORMATS
from runtime.measure.client import KEY, RemoteServer, ServerError
from runtime.transcriber import Transcriber


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's key is sent to the tests' servers."""
    monkeypatch.delenv(KEY, raising=False)


@pytest.fixture
def remote(server: Served) -> Iterator[RemoteServer]:
    """The demo model, behind HTTP."""
    with RemoteServer(server.url) as asked:
        yield asked


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The URL of a server that answers everything alike."""

    class Alike(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Alike) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()


def test_a_transcript_is_as_it_was_written_and_as_it_is_read(remote: RemoteServer, speech: list[Clip]) -> None:
    clip = speech[0]
    heard = remote.transcribe(clip.path)
    assert (heard.text, heard.language) == (clip.text, clip.language)
    assert heard.seconds == heard.fields["duration"]
    assert json.loads(heard.written) == heard.fields
    assert remote.transcribe(clip.path.read_bytes()) == heard


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_as_the_server_writes_it(
    remote: RemoteServer, transcriber: Transcriber, speech: list[Clip], form: str
) -> None:
    answer = remote.transcribe(speech[0].path, response_format=form)
    heard = transcriber.transcribe(speech[0].path, timed=FORMATS[form].timed)
    assert answer.written == FORMATS[form].write(heard)
    assert speech[0].text in " ".join(answer.text.split())
    assert bool(answer.fields) == bool(answer.language) == ("json" in form)


def test_language_and_context_are_sent(remote: RemoteServer, clips: list[Clip]) -> None:
    named = next(clip for clip in clips if clip.context)
    assert remote.transcribe(named.path, context=named.context).text == named.text
    assert remote.transcribe(named.path).text != named.text
    assert remote.transcribe(named.path, language="zh").language == "Chinese"


def test_many_threads_ask_at_once(remote: RemoteServer, speech: list[Clip]) -> None:
    with ThreadPoolExecutor(4) as threads:
        texts = [heard.text for heard in threads.map(lambda clip: remote.transcribe(clip.path), speech * 2)]
    assert texts == [clip.text for clip in speech] * 2


def test_what_a_server_says_of_itself(server: Served, remote: RemoteServer) -> None:
    remote.check_ready()
    assert remote.info()["model"]["names"] == ["demo", "qwen3-asr"]
    where = remote.where()
    assert (where.silicon, where.model, where.url) == ("CPU", "demo", server.url)
    assert where.engine == "transformers"
    assert where.engine_and_version == f"transformers {where.versions['transformers']}"


def test_a_refusal_tells_all_that_the_server_told(remote: RemoteServer, speech: list[Clip]) -> None:
    with pytest.raises(ServerError, match="Klingon") as refused:
        remote.transcribe(speech[0].path, language="Klingon")
    assert (refused.value.status, refused.value.code) == (400, "invalid_language")
    assert f"(request {refused.value.request_id})" in refused.value.reason
    with pytest.raises(KitError, match=r"nothing\.wav: cannot be read: No such file"):
        remote.transcribe(Path("nothing.wav"))


def test_a_server_that_drains_is_not_ready(server: Served, remote: RemoteServer, speech: list[Clip]) -> None:
    server.server_state.drain()
    try:
        with pytest.raises(KitError, match=r"is not ready: .*draining.* → invoke status"):
            remote.check_ready()
        with pytest.raises(ServerError, match=r"answered 503 .* → invoke status"):
            remote.transcribe(speech[0].path)
    finally:
        server.server_state.resume()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"not found", "is no server of this kit: answers 404"),
        (200, b"<html>", "is no server of this kit: answers 200"),
        (200, b'{"status": "starting"}', "is not ready"),
        (503, b'{"status": "starting", "stage": "loading"}', "is not ready: .*loading"),
    ],
)
def test_readiness_is_the_kits(status: int, body: bytes, words: str) -> None:
    with answering(status, body) as url, RemoteServer(url) as remote, pytest.raises(KitError, match=words):
        remote.check_ready()


# What the kit told when it had one engine.
BEFORE_ENGINES = b"""{"device": {"silicon": "CPU", "name": "cpu", "description": "a CPU"}, "versions": {},
 "model": {"names": ["demo"], "revision": null, "dtype": "float32"}}"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", r"/v1/info is no JSON object"),
        (b"{}", r"no server of this version of the kit: /v1/info, device: Field required → ask it with the kit"),
        (BEFORE_ENGINES, r"no server of this version of the kit: /v1/info, engine: Field required"),
        (b'{"device": {"silicon": "GPU"}}', r"/v1/info, device\.silicon: Input should be 'NPU'"),
    ],
)
def test_another_kits_info_is_said(body: bytes, words: str) -> None:
    with answering(200, body) as url, RemoteServer(url) as remote, pytest.raises(KitError, match=words):
        remote.where()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "has no text, language and duration"),
        (200, b'{"text": "yes"}', "has no text, language and duration"),
        (200, b'{"text": 1, "language": null, "duration": 2}', "of another type"),
        (200, b"\xff", "is no UTF-8"),
        (502, b"<html>bad gateway", r"answered 502: Bad Gateway → its log tells why"),
        (500, b'{"error": {"message": "lost", "request_id": "r1"}}', r"lost \(request r1\) → .*, at request r1"),
        (404, b'{"detail": "Not Found"}', r"answered 404: Not Found → give the --url of a server of this kit"),
        (302, b"", r"answered 302"),
    ],
)
def test_an_answer_that_is_no_transcript_is_said(status: int, body: bytes, words: str) -> None:
    with answering(status, body) as url, RemoteServer(url) as remote, pytest.raises(KitError, match=words):
        remote.transcribe(b"audio")


def test_an_answer_that_does_not_come_is_said(transcriber: Transcriber, speech: list[Clip]) -> None:
    still, engine = held(transcriber)
    with served(still) as server, RemoteServer(server.url, patience=0.1) as remote:
        with pytest.raises(KitError, match=r"gave no answer within 0\.1 s"):
            remote.transcribe(speech[0].path)
        engine.next().cancelled.wait(60)  # as nobody waits for it any more


def test_a_server_elsewhere_is_reached_through_the_proxy(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_proxies(monkeypatch)
    with (
        served(transcriber, allowed_hosts="asr.invalid") as server,
        proxying({"asr.invalid:8000": ("127.0.0.1", server.http_server.port)}) as proxy,
    ):
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:sesame@"))
        with RemoteServer("http://asr.invalid:8000/v1") as remote:
            remote.check_ready()
            assert remote.info()["model"]
    assert proxy.requests[0][1] == "http://asr.invalid:8000/health/ready"
    with RemoteServer("http://asr.invalid:8000") as remote, pytest.raises(KitError) as caught:
        remote.check_ready()
    assert f"cannot be reached through the proxy {proxy.url} (http_proxy): Connection refused" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_server_on_loopback_is_never_asked_through_a_proxy(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dead_proxies().items():
        monkeypatch.setenv(name, value)
    with RemoteServer(server.url) as remote:
        remote.check_ready()


def test_a_proxy_of_another_kind_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(UsageError, match="ALL_PROXY: names a socks5 proxy"):
        RemoteServer("http://asr.invalid:8000")


def test_https_by_whoever_is_trusted(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    (tmp_path / "authority.crt").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "server.crt").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    (tmp_path / "server.key").write_bytes(made.private_key_pem.bytes())
    files = {"tls_cert_file": tmp_path / "server.crt", "tls_key_file": tmp_path / "server.key"}
    with served(transcriber, **files) as server:
        with (
            RemoteServer(server.url) as remote,
            pytest.raises(KitError, match=r"cannot be trusted: .*REQUESTS_CA_BUNDLE"),
        ):
            remote.check_ready()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.crt"))
        with RemoteServer(server.url) as remote:
            remote.check_ready()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:8000", "is no URL → such as http://"),
        ("ftp://127.0.0.1", "is no URL"),
        ("http://", "is no URL"),
        ("http://127.0.0.1:port", "is no URL"),
        ("http://me:secret@127.0.0.1:8000", "holds one of @"),
        ("http://127.0.0.1:8000/?x=1", "holds one of @"),
    ],
)
def test_what_is_no_address_is_wrong_usage(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        RemoteServer(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("key", ["two words", "line\n", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_wrong_usage(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    with pytest.raises(UsageError, match=f"{KEY}: holds spaces or letters that no key has") as refused:
        RemoteServer("http://127.0.0.1:8000")
    assert key not in str(refused.value)
