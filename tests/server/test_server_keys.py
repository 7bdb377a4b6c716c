"""Callers' keys, and how much each may ask, over HTTP and WebSockets."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import WebSocket
from pydantic import SecretStr
from serving import PATIENCE, bearer, decoded, held, served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from env.errors import KitError
from env.settings import Settings
from env.sources import SettingsError, load_settings
from runtime.demo import Clip
from runtime.server.app import create_app
from runtime.server.auth import read_keys
from runtime.server.credentials import read_access
from runtime.server.http import run_http_server
from runtime.server.service import Service
from runtime.server.state import ServerState
from runtime.transcriber import Transcriber

KEY = "sk-of-somebody"
REALTIME = Subprotocol("realtime")


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """Two callers; one has limits of its own."""
    path = tmp_path / "keys"
    path.write_text(f"# callers\nalice: {KEY}\n\nbatch:sk:two  per_minute=2 at_once=5 sessions=2\n", encoding="utf-8")
    return path


@contextmanager
def echoing(transcriber: Transcriber, **changes: object) -> Iterator[str]:
    """A server with a WebSocket that says whose it is and which subprotocols it sees; gives its address."""
    server_state, settings = ServerState(), transcriber.settings.model_copy(update=changes)
    app = create_app(server_state, access=read_access(settings))

    @app.websocket("/v1/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept(subprotocol=REALTIME if REALTIME in socket.scope["subprotocols"] else None)
        await socket.send_json([socket.state.owner, socket.scope["subprotocols"]])
        await socket.receive()

    with run_http_server(app, host="127.0.0.1", port=0) as http_server:
        service = Service(transcriber)
        server_state.ready(service)
        try:
            yield f"127.0.0.1:{http_server.port}/v1/echo"
        finally:
            assert server_state.wait_idle(PATIENCE)
            service.close()


def refusal_of(address: str, **options: Any) -> httpx.Response:
    """How opening a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{address}", **options)
    told = caught.value.response
    return httpx.Response(told.status_code, headers=dict(told.headers), content=bytes(told.body))


def refused(address: str, **options: Any) -> tuple[int, str]:
    """How opening a WebSocket is refused: status and code."""
    answer = refusal_of(address, **options)
    return answer.status_code, answer.json()["error"]["code"]


def test_one_key_by_a_setting(transcriber: Transcriber, speech: list[Clip]) -> None:
    with served(transcriber, api_key=SecretStr(KEY)) as server:
        with server.client(KEY) as client:
            assert client.audio.transcriptions.create(file=speech[0].path, model="demo").text == speech[0].text
        with server.client("sk-of-nobody") as client, pytest.raises(openai.AuthenticationError) as wrong:
            client.models.list()
        assert wrong.value.code == "invalid_api_key"
        for headers in (
            {},
            {"Authorization": KEY},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": "Bearer"},
            bearer(KEY[:-1]),
        ):
            answer = server.get("/v1/info", headers=headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert server.get(f"/v1/info?api_key={KEY}").status_code == 401
        for path in ("/health/ready", "/docs", "/openapi.json"):
            assert server.get(path).status_code == 200


def test_a_websocket_brings_its_key_in_a_header_or_as_a_subprotocol(transcriber: Transcriber, keys_file: Path) -> None:
    with echoing(transcriber, keys_file=keys_file) as address:
        with connect(f"ws://{address}", additional_headers=bearer(KEY)) as socket:
            assert socket.recv(PATIENCE) == '["alice",[]]'
        secret = Subprotocol(f"openai-insecure-api-key.{KEY}")
        with connect(f"ws://{address}", subprotocols=[REALTIME, secret]) as socket:
            assert socket.subprotocol == REALTIME
            assert socket.recv(PATIENCE) == '["alice",["realtime"]]'
        assert refused(address) == (401, "invalid_api_key")
        assert refused(f"{address}?api_key={KEY}") == (401, "invalid_api_key")
        assert refused(address, additional_headers=bearer("sk-of-nobody")) == (401, "invalid_api_key")
        assert refused(address, subprotocols=[f"{secret}x"]) == (401, "invalid_api_key")


def test_a_websocket_is_refused_until_the_server_is_ready() -> None:
    with run_http_server(create_app(ServerState()), host="127.0.0.1", port=0) as http_server:
        assert refused(f"127.0.0.1:{http_server.port}/v1/realtime") == (503, "starting")


def test_requests_per_minute_of_each_key(transcriber: Transcriber, keys_file: Path) -> None:
    with served(transcriber, keys_file=keys_file, requests_per_minute=1) as server:
        for key, most in ((KEY, 1), ("sk:two", 2)):
            for made in range(1, most + 1):
                answer = server.get("/v1/models", headers=bearer(key))
                assert answer.status_code == 200
                assert answer.headers["x-ratelimit-limit-requests"] == str(most)
                assert answer.headers["x-ratelimit-remaining-requests"] == str(most - made)
            with server.client(key) as client, pytest.raises(openai.RateLimitError) as caught:
                client.models.list()
            assert caught.value.code == "rate_limit_exceeded"
            headers = caught.value.response.headers
            # A minute after the first request, which is seconds ago.
            assert 30 < int(headers["Retry-After"]) <= 60
            assert headers["x-ratelimit-reset-requests"] == f"{headers['Retry-After']}s"
            assert headers["x-ratelimit-remaining-requests"] == "0"
        assert server.get("/v1/models", headers=bearer("sk-of-nobody")).status_code == 401
        assert server.get("/health/ready").status_code == 200


def test_without_keys_addresses_count(transcriber: Transcriber) -> None:
    with served(transcriber, requests_per_minute=1) as server:
        for address in ("127.0.0.1", "127.0.0.2"):
            with httpx.Client(transport=httpx.HTTPTransport(local_address=address), base_url=server.url) as client:
                assert [client.get("/v1/models").status_code for _ in range(2)] == [200, 429]


def test_requests_at_once(transcriber: Transcriber, speech: list[Clip]) -> None:
    silent, engine = held(transcriber)
    files = {"file": speech[0].path.read_bytes()}
    with served(silent, requests_at_once=1, requests_per_minute=3) as server, ThreadPoolExecutor(1) as pool:
        for remaining in ("2", "1"):
            first = pool.submit(server.post, files=files)
            decoding = engine.next()
            second = server.post(files=files)
            assert (second.status_code, second.json()["error"]["code"]) == (429, "too_many_at_once")
            assert int(second.headers["Retry-After"]) > 0
            decoding.tell(decoded("done"))
            # What was refused did not count.
            assert first.result().headers["x-ratelimit-remaining-requests"] == remaining


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"max_sessions": 20}, 10),  # half of all
        ({"max_sessions": 20, "sessions_at_once": 3}, 3),
        ({"max_sessions": 20, "requests_at_once": 2}, 2),  # as it was before sessions had a limit of their own
        ({"max_sessions": 20, "requests_at_once": 2, "sessions_at_once": 3}, 3),
    ],
)
def test_one_caller_leaves_sessions_to_others(transcriber: Transcriber, changes: dict[str, int], most: int) -> None:
    with echoing(transcriber, **changes) as address, ExitStack() as stack:
        for _ in range(most):
            stack.enter_context(connect(f"ws://{address}"))
        refusal = refusal_of(address)
        assert refusal.status_code == 429
        assert int(refusal.headers["Retry-After"]) > 0
        error = refusal.json()["error"]
        assert error["code"] == "too_many_sessions"
        assert f"the limit of each caller is {most} (ASR_SESSIONS_AT_ONCE)" in error["message"]
        stack.enter_context(connect(f"ws://{address}", source_address=("127.0.0.2", 0)))


def test_each_key_has_sessions_of_its_own(transcriber: Transcriber, keys_file: Path) -> None:
    with echoing(transcriber, keys_file=keys_file, sessions_at_once=1) as address, ExitStack() as stack:
        for key, most in ((KEY, 1), ("sk:two", 2)):
            for _ in range(most):
                stack.enter_context(connect(f"ws://{address}", additional_headers=bearer(key)))
            assert refused(address, additional_headers=bearer(key)) == (429, "too_many_sessions")


def test_one_caller_leaves_places_in_the_queue_to_others(transcriber: Transcriber, speech: list[Clip]) -> None:
    silent, engine = held(transcriber)
    files = {"file": speech[0].path.read_bytes()}
    with served(silent, max_waiting=16) as server, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.post, files=files) for _ in range(8)]
        decodings = [engine.next() for _ in answers]
        refusal = server.post(files=files)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "too_many_at_once")
        assert "the limit of each caller is 8 (ASR_REQUESTS_AT_ONCE)" in refusal.json()["error"]["message"]
        assert int(refusal.headers["Retry-After"]) > 0
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), base_url=server.url) as other:
            assert other.get("/v1/models").status_code == 200
        for decoding in decodings:
            decoding.tell(decoded("done"))
        assert {answer.result().status_code for answer in answers} == {200}


def test_a_websocket_counts_until_it_is_closed(transcriber: Transcriber) -> None:
    with echoing(transcriber, requests_at_once=1, requests_per_minute=2) as address:
        for _ in range(2):
            with connect(f"ws://{address}") as socket:
                socket.recv(PATIENCE)
                assert refused(address) == (429, "too_many_sessions")
        assert refused(address) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("# none\n", "holds no key"),
        ("alice\n", "line 1 of .* is not name:key"),
        (":secret", "line 1 of .* is not name:key"),
        ("a:sécret", "line 1 of .* is not name:key"),
        ("a:secret-1\na:secret-2", "line 2 of .* repeats"),
        ("a:secret-1 per_minute=0", "line 1 of .* behind its key than per_minute=N, at_once=N and sessions=N"),
        ("a:secret-1 at_once=2 at_once=3", "line 1 of .* once each"),
        ("a:secret-1 secret-2", "line 1"),
        ("a:secret-1\nb:secret-1", "line 2 of .* repeats"),
        ("a:", "line 1 of .* is not name:key"),
    ],
)
def test_a_keys_file_that_is_wrong_is_refused_without_its_keys(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(KitError, match=f"ASR_KEYS_FILE.*{words}") as caught:
        read_keys(path)
    assert "secret" not in str(caught.value)


def test_a_keys_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"ASR_KEYS_FILE.*cannot be read"):
        read_keys(tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"api_key": "secret words", "admin_key": None}, "ASR_API_KEY: is not all of visible ASCII"),
        ({"admin_key": "secrét-words"}, "ASR_ADMIN_KEY: is not all of visible ASCII"),
        ({"api_key": "secret-words", "admin_key": "secret-words"}, "ASR_ADMIN_KEY: is a caller's key too"),
        ({"api_key": "secret-words", "keys_file": True}, "ASR_API_KEY: is set, and so is ASR_KEYS_FILE"),
    ],
)
def test_keys_that_cannot_be(settings: Settings, keys_file: Path, changes: dict[str, object], words: str) -> None:
    given = {name: SecretStr(value) if isinstance(value, str) else value for name, value in changes.items()}
    if "keys_file" in given:
        given["keys_file"] = keys_file
    with pytest.raises(KitError, match=words) as caught:
        read_access(settings.model_copy(update=given))
    assert "words" not in str(caught.value)


@pytest.mark.parametrize("name", ["ASR_API_KEY", "ASR_ADMIN_KEY"])
def test_a_short_key_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: the value .* expected 8 characters or more") as caught:
        load_settings({name: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_openais_realtime_client_brings_its_key(transcriber: Transcriber) -> None:
    with served(transcriber, api_key=SecretStr(KEY), sessions_at_once=1) as server:
        with (
            server.client(KEY) as client,
            client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
        ):
            assert connection.recv().type.endswith("session.created")
            assert server.post("/v1/realtime", headers=bearer(KEY)).status_code == 429
            assert server.get("/v1/models", headers=bearer(KEY)).status_code == 200
        with server.client("sk-of-nobody") as client, pytest.raises(InvalidStatus, match="401"):
            client.realtime.connect(extra_query={"intent": "transcription"}).enter()
