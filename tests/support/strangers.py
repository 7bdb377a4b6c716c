"""Web servers on the loopback, which also misbehave in every way that a stranger's server may."""

import http.server
import io
import ipaddress
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.audio.download import FetchError, allow_any, fetch
from runtime.urls import Address, redact_url

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


def get(url: str, *, seconds: float = 20, most_bytes: int = 1_000_000, permitted: Any = allow_any) -> bytes:
    body = io.BytesIO()
    fetch(url, body, seconds=seconds, most_bytes=most_bytes, permitted=permitted)
    return body.getvalue()


def refusal(url: str, **limits: Any) -> str:
    with pytest.raises(FetchError) as caught:
        get(url, **limits)
    assert caught.value.subject == redact_url(url)
    return caught.value.reason


def only_home(address: Address) -> bool:
    return address == HOME


def self_signed(directory: Path, *names: str) -> Path:
    """A certificate with its key for these names, signed by nobody else; the certificate alone is beside it, .crt."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the test's certificate, is not installed")
    path = directory / "both.pem"
    command = [
        *("openssl", "req", "-x509", "-nodes", "-days", "2"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-subj", f"/CN={names[0]}", "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)),
        *("-keyout", str(path), "-out", str(path.with_suffix(".crt"))),
    ]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path
