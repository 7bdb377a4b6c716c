"""Downloads from real servers on the loopback, which also misbehave in every way that a stranger's server may."""

import base64
import http.server
import ipaddress
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from audio_files import made

from env.settings import Settings
from runtime.audio import AudioError, Limits, load
from runtime.fetch import Address, FetchError, anywhere, fetch, is_public, shown

Answer = Callable[["Handler"], None]

HOME = ipaddress.ip_address("127.0.0.1")
ELSEWHERE = "127.0.0.2"  # another loopback address, which stands for a private one


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the test says, and remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        self.server.answer(self)

    def reply(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Lives while the test does; `stopping` tells answers that dawdle to give up."""

    daemon_threads = False

    def __init__(self, answer: Answer, host: str) -> None:
        super().__init__((host, 0), Handler)
        self.answer, self.requests, self.stopping = answer, list[tuple[str, dict[str, str]]](), threading.Event()
        self.url = f"http://{host}:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """The client has hung up: so it should."""


@contextmanager
def serving(answer: Answer, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server(answer, host) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.url = server.url.replace("http://", "https://")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


def get(url: str, *, seconds: float = 20, most_bytes: int = 1_000_000, permitted: Any = anywhere) -> bytes:
    return fetch(url, seconds=seconds, most_bytes=most_bytes, permitted=permitted)


def refusal(url: str, **limits: Any) -> str:
    with pytest.raises(FetchError) as caught:
        get(url, **limits)
    assert caught.value.subject == shown(url)
    return caught.value.reason


def only_home(address: Address) -> bool:
    return address == HOME


# What comes


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
    assert shown(url) == server.url + "/clip.wav?…"
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


def test_environment_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda handler: handler.reply(b"direct")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert get(server.url) == b"direct"


# What is refused


def test_private_addresses_are_refused_unasked() -> None:
    with serving(lambda handler: handler.reply(b"secret")) as server:
        assert refusal(server.url, permitted=is_public) == "leads to the address 127.0.0.1, which is not public"
        assert "not public" in refusal(server.url.replace("127.0.0.1", "localhost"), permitted=is_public)
        assert "not public" in refusal(server.url.replace("127.0.0.1", "2130706433"), permitted=is_public)
        assert server.requests == []


def test_a_redirect_to_a_private_address_is_refused_unasked() -> None:
    with serving(lambda handler: handler.reply(b"secret"), ELSEWHERE) as inside:
        target = inside.url.replace("http://", "http://user:word@") + "/metadata?token=hidden"
        with serving(lambda handler: handler.reply(status=302, Location=target)) as outside:
            reason = refusal(outside.url, permitted=only_home)
        assert inside.requests == []
    assert (
        reason == f"redirects to {inside.url}/metadata?…, which leads to the address {ELSEWHERE}, which is not public"
    )


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers differently the second time; it stands in for the internet's."""
    asked = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else ELSEWHERE
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with serving(lambda handler: handler.reply(b"checked")) as server:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert get(server.url.replace("127.0.0.1", "rebinding.example"), permitted=only_home) == b"checked"
        assert server.requests[0][1]["Host"] == f"rebinding.example:{server.server_port}"
    assert asked == ["rebinding.example"]


def test_of_several_addresses_a_permitted_one_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(_: str, port: int, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (2, 3, 1)]

    with serving(lambda handler: handler.reply(b"hello")) as server:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert get(f"http://many.example:{server.server_port}") == b"hello"
        assert get(f"http://many.example:{server.server_port}", permitted=only_home) == b"hello"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0"),
        *("224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:224.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2002:7f00:1::"),
    ],
)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_endless_redirects_are_refused() -> None:
    with serving(lambda handler: handler.reply(status=302, Location=handler.path + "x")) as server:
        assert "comes after 5 redirects" in refusal(server.url)
        assert len(server.requests) == 6


@pytest.mark.parametrize(("status", "reason"), [(404, "404 Not Found"), (500, "500"), (204, "204"), (302, "302 Found")])
def test_other_answers_are_refused_by_their_status(status: int, reason: str) -> None:
    with serving(lambda handler: handler.reply(status=status)) as server:
        assert refusal(server.url).startswith(f"answers {reason}")


def test_too_large_a_body_is_refused_before_it_comes() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000000000")
        handler.end_headers()
        handler.server.stopping.wait()

    with serving(answer) as server:
        assert refusal(server.url) == "holds 1000000000000 bytes, the limit is 1000000"


def test_a_body_that_does_not_end_is_refused_at_the_limit() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.stopping.is_set():
            handler.wfile.write(bytes(10_000))

    with serving(answer) as server:
        assert refusal(server.url) == "holds more bytes than the limit of 1000000"


def test_a_body_that_breaks_off_is_refused() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"hello")

    def chunked(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"a\r\nhello")

    with serving(answer) as server:
        assert refusal(server.url) == "broke off after 5 of 10 bytes"
    with serving(chunked) as server:
        assert "cannot be fetched" in refusal(server.url)


def dripping(first: bytes, drop: bytes) -> Answer:
    """`first`, then `drop` again and again, far longer than the client should listen."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(first)
        for _ in range(500):
            if handler.server.stopping.wait(0.02):
                return
            handler.wfile.write(drop)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler: handler.server.stopping.wait(10),
        dripping(b"HTTP/1.1 200 OK\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["silence", "header", "body", "chunks"],
)
def test_a_server_that_hangs_or_drips_is_left_at_the_limit(answer: Answer) -> None:
    with serving(answer) as server:
        assert refusal(server.url, seconds=0.3) == "took longer than the limit of 0.3 s"


def test_a_server_that_never_shakes_hands_is_left_at_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert "took longer" in refusal(f"https://127.0.0.1:{port}/", seconds=0.2)
        assert "took longer" in refusal(f"http://127.0.0.1:{port}/", seconds=0.2)


def test_nobody_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/") == "cannot be fetched: Connection refused"
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert refusal("http://nothing.example/") == "cannot be fetched: Name or service not known"


def test_what_is_not_http_is_said() -> None:
    def answer(handler: Handler) -> None:
        handler.wfile.write(b"220 mail ready\r\n")

    with serving(answer) as server:
        assert "cannot be fetched" in refusal(server.url)
    with serving(lambda handler: handler.reply(b"zipped", Content_Encoding="gzip")) as server:
        assert "encoding gzip" in refusal(server.url)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/a.wav", "file:///etc/hostname", "http://", "http:///a.wav", "gopher://x", "http://[::1"),
        *("http://host:port/", "http://a..b/", "http://" + "a" * 70 + ".example/"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    assert refusal(url)


def test_a_redirect_may_not_leave_http() -> None:
    with serving(lambda handler: handler.reply(status=302, Location="file:///etc/hostname")) as server:
        assert refusal(server.url) == "redirects to file:///etc/hostname, which is not an http or https URL with a host"


def test_advice_names_settings_that_exist() -> None:
    limits: list[dict[str, Any]] = [{"permitted": is_public}, {"most_bytes": 10}, {"seconds": 0.0}]
    with serving(lambda handler: handler.reply(bytes(100))) as server:
        for limit in limits:
            with pytest.raises(FetchError) as caught:
                get(server.url, **limit)
            (name,) = re.findall(r"ASR_(\w+)", caught.value.advice)
            assert name.lower() in Settings.model_fields


# https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key for localhost, signed by nobody else."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the test's certificate, is not installed")
    path = tmp_path_factory.mktemp("https") / "both.pem"
    command = [
        *("openssl", "req", "-x509", "-nodes", "-days", "2"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-keyout", str(path), "-out", str(path.with_suffix(".crt"))),
    ]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


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
