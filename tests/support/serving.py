"""The HTTP API on a free port of loopback, with an engine that is real or held still."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import httpx
import openai

from runtime.demo import Clip
from runtime.engines import Decoded, Engine, EngineStatus, Event, Utterance
from runtime.model.prompt import ASR_TEXT
from runtime.server.app import create_app
from runtime.server.credentials import Credentials
from runtime.server.http import HttpServer, run_http_server
from runtime.server.service import Service
from runtime.server.state import ServerState
from runtime.transcriber import Transcriber

PATIENCE = 60.0  # seconds until a test that waits in vain fails
LOOK = 0.1  # seconds between looks at files of keys and certificates
TRANSCRIPTIONS = "/v1/audio/transcriptions"
# A server as a program of its own, which prints its port.
SERVE = """
from env.sources import load_settings
from runtime.server.serve import serve

settings = load_settings().model_copy(update={"port": 0})
serve(settings, on_ready=lambda port: print("PORT", port, flush=True))
"""


class HeldDecoding:
    """An utterance that ends when a test says so."""

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        self.cancelled = threading.Event()
        self._told: list[Event] = []
        self._listeners: list[Callable[[Event], None]] = []
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        """A token, or the end."""
        with self._lock:
            if not self._ended.is_set():
                self._told.append(event)
                for http_server in self._listeners:
                    http_server(event)
            if not isinstance(event, int):
                self._ended.set()

    def add_listener(self, http_server: Callable[[Event], None]) -> None:
        with self._lock:
            for event in self._told:
                http_server(event)
            self._listeners.append(http_server)

    def cancel(self) -> None:
        self.cancelled.set()
        self.tell(CancelledError())

    def __iter__(self) -> Iterator[int]:
        self._ended.wait()
        return (event for event in self._told if isinstance(event, int))

    def result(self) -> Decoded:
        self._ended.wait()
        end = self._told[-1]
        if isinstance(end, Decoded):
            return end
        assert isinstance(end, BaseException)
        raise end


class HeldEngine:
    """Stands in for an engine and decodes nothing on its own; `due` has what it was given, in order."""

    def __init__(self, real: Engine) -> None:
        self.name, self.tokenizer, self.device, self.loaded = real.name, real.tokenizer, real.device, real.loaded
        self.together = real.status().most_together
        self.due: SimpleQueue[HeldDecoding] = SimpleQueue()

    def start(self) -> None:
        """Nothing to make ready."""

    def submit(self, utterances: Sequence[Utterance]) -> Sequence[HeldDecoding]:
        decodings = [HeldDecoding(utterance) for utterance in utterances]
        for decoding in decodings:
            self.due.put(decoding)
        return decodings

    def status(self) -> EngineStatus:
        return EngineStatus(self.due.qsize(), 0, self.together)

    def stop(self, *, drain: bool = True) -> None:
        """Nothing to stop."""

    def next(self) -> HeldDecoding:
        """The next utterance, once it is there."""
        return self.due.get(timeout=PATIENCE)


@dataclass(frozen=True)
class Served:
    """A running server."""

    http_server: HttpServer
    server_state: ServerState
    service: Service
    scheme: str
    credentials: Credentials

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.http_server.port}"

    def client(self, key: str = "none") -> openai.OpenAI:
        """The official client, which tries once."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)

    def post(self, path: str = TRANSCRIPTIONS, **options: Any) -> httpx.Response:
        """One request, as a form or however `options` have it."""
        return httpx.post(self.url + path, timeout=PATIENCE, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One request."""
        return httpx.get(self.url + path, timeout=PATIENCE, **options)


@contextmanager
def served(transcriber: Transcriber, **changes: object) -> Iterator[Served]:
    """A server around a transcriber, with some settings changed."""
    server_state = ServerState()
    settings = transcriber.settings.model_copy(update=changes)
    credentials = Credentials(settings)
    app = create_app(server_state, access=credentials.access)
    app.state.metrics.add_certificate_expiry(credentials.tls)
    with (
        credentials.watching(interval=LOOK),
        run_http_server(app, host=settings.host, port=0, tls=credentials.tls) as http_server,
    ):
        service = Service(replace(transcriber, settings=settings))
        server_state.ready(service)
        try:
            yield Served(http_server, server_state, service, "https" if credentials.tls else "http", credentials)
        finally:
            http_server.call(service.cancel_all)
            assert server_state.wait_idle(PATIENCE)
            service.close()


@contextmanager
def loading() -> Iterator[tuple[ServerState, int]]:
    """A server that has no model yet, and its port."""
    server_state = ServerState()
    server_state.status_text = "loading weights/model"
    with run_http_server(create_app(server_state), host="127.0.0.1", port=0) as http_server:
        yield server_state, http_server.port


def held(transcriber: Transcriber) -> tuple[Transcriber, HeldEngine]:
    """The transcriber with an engine that is held still."""
    engine = HeldEngine(transcriber.engine)
    return replace(transcriber, engine=engine), engine


def decoded(text: str) -> Decoded:
    """What a held engine heard, in English."""
    return Decoded((), f"language English{ASR_TEXT}{text}", truncated=False)


def bearer(key: str) -> dict[str, str]:
    """The header that brings a key."""
    return {"Authorization": f"Bearer {key}"}


def hang_up_after_upload(server: Served, clip: Clip, **fields: str) -> socket.socket:
    """A client that has sent its request and waits; closing the socket is hanging up."""
    request = httpx.Request("POST", server.url + TRANSCRIPTIONS, files={"file": clip.path.read_bytes()}, data=fields)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection = socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE)
    connection.sendall(f"POST {TRANSCRIPTIONS} HTTP/1.1\r\n{head}\r\n".encode() + request.read())
    return connection


def lines(server: "subprocess.Popen[str]") -> Iterator[str]:
    """What a server that is a program of its own prints and logs, line by line."""
    assert server.stdout
    return iter(server.stdout.readline, "")
