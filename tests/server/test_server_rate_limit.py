"""What a page that somebody looks at may ask of a server without keys, and who tries many keys of one with them."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fronting import until
from pydantic import SecretStr
from serving import PATIENCE, Served, bearer, served
from starlette.requests import Request
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from env.sources import SettingsError, load_settings
from runtime import urls
from runtime.demo import Clip
from runtime.ops.deploy import override as host
from runtime.server import uploads
from runtime.server.auth import Access, KeyAttempts, Keys, make_key
from runtime.server.errors import ApiError
from runtime.server.rate_limit import Quotas
from runtime.transcriber import Transcriber

KEY = "sk-of-somebody"
EVIL = "evil.example"
PAGE = "https://notes.example"


@contextmanager
def name_server(answer: Callable[[], str]) -> Iterator[None]:
    """It stands in for the house's, which knows this machine's domain."""
    urls.own_names.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getfqdn", answer)
        yield
    urls.own_names.cache_clear()


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[Served]:
    """A server on a machine whose domain is known."""
    with name_server(lambda: "npu-7.House.example"), served(transcriber) as running:
        yield running


def asked(server: Served, host: str, path: str = "/v1/models", **headers: str) -> tuple[int, str]:
    """How a request by that name is answered: status and code."""
    answer = server.get(path, headers={"Host": host, **headers})
    return answer.status_code, answer.json()["error"]["code"] if answer.is_client_error else ""


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "LOCALHOST:8000", "asr.localhost", "127.0.0.1:8000", "[::1]:8000"),
        *("10.1.2.3", "127.1", "203.0.113.7:80"),
        *("asr:8000", "qwen3-asr.speech.svc:8000", "qwen3-asr.speech.svc.cluster.local", "npu.local.", "asr.internal"),
        *(socket.gethostname(), "npu-7.house.EXAMPLE:8000"),
    ],
)
def test_the_names_of_the_server_are_answered(server: Served, name: str) -> None:
    assert asked(server, name) == (200, "")


@pytest.mark.parametrize(
    "name",
    [EVIL, f"{EVIL}:8000", f"{EVIL}.", "localhost.evil.example", "127.0.0.1.nip.io", "evil.localhost.com", "[x", "."],
)
def test_a_page_that_rebinds_its_name_is_refused(server: Served, name: str) -> None:
    for path in ("/v1/models", "/v1/nothing", "/", "/docs", "/openapi.json"):
        assert asked(server, name, path) == (403, "host")
    assert asked(server, "localhost", **{"X-Forwarded-Host": f"localhost, {name}"}) == (403, "host")
    words = server.post(headers={"Host": name}, files={"file": b"RIFF"}).json()["error"]["message"]
    assert f"to the name {name.removesuffix(':8000').rstrip('.')}" in words.replace("'", "")
    assert "ASR_ALLOWED_HOSTS" in words
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert server.get(path, headers={"Host": name}).status_code == 200


def test_no_request_waits_for_a_name_server(transcriber: Transcriber, caplog: pytest.LogCaptureFixture) -> None:
    answers = threading.Event()

    def tell_late() -> str:
        answers.wait(PATIENCE)
        return "npu-7.house.example"

    with name_server(tell_late), served(transcriber) as server:
        assert asked(server, EVIL) == asked(server, "npu-7.house.example") == (403, "host")
        assert not answers.is_set()
        assert "the name server has not answered with this machine's domain" in caplog.text
        answers.set()
        until(lambda: asked(server, "npu-7.house.example") == (200, ""))
        assert asked(server, EVIL) == (403, "host")


def test_a_rebound_page_gets_no_websocket(server: Served) -> None:
    origin = Origin(f"http://{EVIL}:{server.http_server.port}")
    with (
        socket.create_connection(("127.0.0.1", server.http_server.port)) as connection,
        pytest.raises(InvalidStatus, match="403"),
    ):
        connect(f"ws://{EVIL}:{server.http_server.port}/v1/realtime", origin=origin, sock=connection, proxy=None)


def test_names_that_are_allowed(transcriber: Transcriber) -> None:
    with served(transcriber, allowed_hosts="ASR.example, other.example") as server:
        for name in ("asr.example:8443", "OTHER.example"):
            assert asked(server, name) == (200, "")
        assert asked(server, EVIL) == (403, "host")
    for change in ({"allowed_hosts": "*"}, {"cors_origins": "*"}):
        with served(transcriber, **change) as server:
            assert asked(server, EVIL) == (200, "")


def test_where_a_key_is_needed_any_name_will_do(transcriber: Transcriber) -> None:
    with served(transcriber, api_key=SecretStr(KEY)) as server:
        assert asked(server, EVIL) == (401, "invalid_api_key")
        assert asked(server, EVIL, **bearer(KEY)) == (200, "")
        assert asked(server, EVIL, "/docs") == (200, "")


@pytest.mark.parametrize("text", ["*,a.example", "http://a.example", "a.example:80", "*.example", "a b"])
def test_names_that_cannot_be_hosts_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"ASR_ALLOWED_HOSTS.*expected names with commas between, or \*"):
        load_settings({"ASR_ALLOWED_HOSTS": text})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "npu-7.house.example"),
        ("a.example, b.example", "a.example,b.example,npu-7.house.example"),
        ("*", "*"),
    ],
)
def test_a_container_is_told_the_names_of_its_host(given: str, expected: str) -> None:
    variables = {"ASR_ALLOWED_HOSTS": given} if given else {}
    with name_server(lambda: "npu-7.House.example"):
        assert host.handed_on(load_settings(variables), variables)["ASR_ALLOWED_HOSTS"] == expected


def posted(server: Served, clip: Clip, **headers: str) -> tuple[int, str]:
    """How a form that a page sends is answered."""
    answer = server.post(files={"file": clip.path.read_bytes()}, headers=headers)
    return answer.status_code, answer.json()["error"]["code"] if answer.is_client_error else ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Origin": "https://asr.example", "Sec-Fetch-Site": "same-origin"}, 200),  # behind a proxy that changes Host
        ({"Origin": "chrome-extension://abcdefgh"}, 200),
        ({"Origin": PAGE}, 403),
        ({"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_forms_of_other_pages_are_refused(
    server: Served, speech: list[Clip], headers: dict[str, str], status: int
) -> None:
    sent = {name: value.format(port=server.http_server.port) for name, value in headers.items()}
    assert posted(server, speech[0], **sent) == (status, "origin" if status == 403 else "")


def test_forms_of_pages_that_are_let_in(transcriber: Transcriber, speech: list[Clip]) -> None:
    with served(transcriber, cors_origins=PAGE) as server:
        assert posted(server, speech[0], Origin=PAGE) == (200, "")
        assert posted(server, speech[0], Origin="https://evil.example") == (403, "origin")
    with served(transcriber, api_key=SecretStr(KEY)) as server:
        assert posted(server, speech[0], Origin=PAGE, **bearer(KEY)) == (200, "")


def test_who_tries_many_keys_is_slowed_down(transcriber: Transcriber) -> None:
    with served(transcriber, api_key=SecretStr(KEY), admin_key=SecretStr("sk-operator")) as server:

        def status(path: str = "/v1/models", key: str = "sk-guess", client: httpx.Client | None = None) -> int:
            ask = client.get if client else httpx.get
            return ask(server.url + path, headers=bearer(key) if key else {}, timeout=PATIENCE).status_code

        assert {status("/admin/status" if one % 2 else "/v1/models") for one in range(10)} == {401}
        slowed = server.get("/v1/models", headers=bearer("sk-guess"))
        assert (slowed.status_code, slowed.json()["error"]["code"]) == (429, "too_many_wrong_keys")
        assert 1 <= int(slowed.headers["Retry-After"]) <= 60
        assert status("/admin/status") == 429
        with pytest.raises(InvalidStatus, match="429"):
            connect(
                f"ws://127.0.0.1:{server.http_server.port}/v1/realtime",
                subprotocols=[Subprotocol("openai-insecure-api-key.sk-guess")],
            )
        assert status(key="") == 401
        assert status(key=KEY) == 200
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as other:
            assert status(client=other) == 401


def test_beyond_ten_wrong_keys_no_other_is_looked_at() -> None:
    """But for those that were right there before: an office has one address, and may have a guesser."""
    colleague = "sk-of-a-colleague"
    keys = Keys((make_key(KEY, owner="a", variable=""), make_key(colleague, owner="b", variable="")))
    key_attempts = KeyAttempts()

    def answer(key: str, address: str = "192.0.2.1", known: Keys = keys) -> str:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        try:
            found = key_attempts.find(known, {"type": "http", "client": (address, 1), "headers": headers})
        except ApiError as refusal:
            return str(refusal.status)
        return found.owner if found else "wrong"

    assert answer(KEY) == "a"
    assert {answer("sk-old") for _ in range(10)} == {"wrong"}  # one who goes on with an old key has made one guess
    assert (answer("sk-old"), answer(colleague)) == ("429", "b")
    key_attempts = KeyAttempts()
    assert answer(KEY) == "a"
    assert [answer(f"sk-{guess}") for guess in range(11)] == ["wrong"] * 10 + ["429"]
    assert answer(colleague) == "429"
    assert answer("sk-operator", known=Keys((make_key("sk-operator", owner="admin", variable=""),))) == "429"
    assert (answer(KEY), answer(colleague, "192.0.2.2")) == ("a", "b")


def test_of_ipv6_a_whole_site_counts_as_one() -> None:
    key_attempts, keys = KeyAttempts(), Keys((make_key(KEY, owner="a", variable=""),))
    access, quotas = Access(at_once=1, sessions=1), Quotas()

    def scope(address: str, key: str = "") -> dict[str, Any]:
        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        return {"type": "http", "client": (address, 1), "headers": headers}

    assert not any(key_attempts.find(keys, scope(f"2001:db8:0:1::{last}", f"sk-{last}")) for last in range(10))
    with pytest.raises(ApiError, match="more than 10 wrong keys"):
        key_attempts.find(keys, scope("2001:db8:0:1:ffff::1", "sk-guess"))
    assert not key_attempts.find(keys, scope("2001:db8:0:2::1", "sk-guess"))
    addresses = ("2001:db8::1", "2001:db8::2", "2001:db8:1::")
    one, same, other = (access.caller(scope(address), None) for address in addresses)
    for session in (False, True):
        with (
            quotas.reserve(one, session=session),
            quotas.reserve(other, session=session),
            pytest.raises(ApiError, match="limit of each caller is 1"),
            quotas.reserve(same, session=session),
        ):
            pass
    rooms = [uploads.owner_of(Request(scope(address) | {"state": {"owner": ""}})) for address in addresses]
    assert len({*rooms}) == 2
    assert rooms[0] == rooms[1]


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 30\r\n",
        "Content-Length: 4\r\nContent-Length: 30\r\n",
    ],
)
def test_two_lengths_of_one_body_end_the_connection(server: Served, head: str) -> None:
    """What comes after may be a request to one and a body to another, as to a proxy in front."""
    body = "0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as connection:
        connection.sendall(f"POST /v1/nothing HTTP/1.1\r\nHost: x\r\n{head}\r\n{body}".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1
    assert server.get("/health/live").status_code == 200
