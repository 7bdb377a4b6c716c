"""Whose pages may use the server from a browser, who may give it orders, and where the secrets go."""

import asyncio
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from serving import PATIENCE, Served, bearer, served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from env.errors import KitError
from env.settings import Settings
from env.sources import SettingsError, load_settings
from runtime.ops import support_bundle
from runtime.ops.deploy import override
from runtime.server.app import create_app
from runtime.server.auth import Access
from runtime.server.credentials import read_access
from runtime.server.state import ServerState
from runtime.transcriber import Transcriber

PAGE = "https://notes.example"
ORDER = "/admin/nothing"  # admitted where it is answered with 404
LOCAL = {"Host": "localhost:8000"}
CALLER, OPERATOR = "sk-of-a-caller", "sk-of-the-operator"


def preflight(server: Served, origin: str) -> httpx.Response:
    """What a browser asks before it sends a page's request with a key."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-lang",
    }
    return httpx.options(f"{server.url}/v1/audio/transcriptions", headers=headers, timeout=PATIENCE)


def test_pages_of_others_are_not_let_in_by_default(server: Served) -> None:
    assert "Access-Control-Allow-Origin" not in preflight(server, PAGE).headers
    assert "Access-Control-Allow-Origin" not in server.get("/v1/models", headers={"Origin": PAGE}).headers


def test_pages_of_the_origins_in_the_settings_are_let_in(transcriber: Transcriber) -> None:
    origins = f"http://localhost:3000, {PAGE}:443"
    with served(transcriber, cors_origins=origins, api_key=SecretStr(CALLER), requests_per_minute=9) as server:
        for origin in (PAGE, "http://localhost:3000"):
            asked = preflight(server, origin)
            assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (200, origin)
            assert "x-stainless-lang" in asked.headers["Access-Control-Allow-Headers"]
        for headers, status in ((bearer(CALLER), 200), ({}, 401)):
            answer = server.get("/v1/models", headers={"Origin": PAGE, **headers})
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, PAGE)
            exposed = answer.headers["Access-Control-Expose-Headers"].lower()
            assert {"retry-after", "x-request-id", "x-ratelimit-remaining-requests"} <= set(exposed.split(", "))
        for origin in (f"{PAGE}.evil.example", "http://notes.example", "null"):
            assert "Access-Control-Allow-Origin" not in preflight(server, origin).headers


def test_a_star_lets_all_pages_in(transcriber: Transcriber) -> None:
    with served(transcriber, cors_origins="*") as server:
        assert preflight(server, PAGE).headers["Access-Control-Allow-Origin"] == "*"
        assert refusal(server, Origin(PAGE)) == "unknown"


def refusal(server: Served, origin: Origin | None) -> str:
    """The code with which the WebSocket of a page is refused; `unknown` for one that only meets no route."""
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{server.http_server.port}/v1/nothing", origin=origin)
    answer = caught.value.response
    assert answer.status_code == 403
    if answer.headers.get("Content-Type") != "application/json":
        return "unknown"
    return str(httpx.Response(403, content=bytes(answer.body or b"")).json()["error"]["code"])


FORWARDED = {"X-Forwarded-Proto": "https"}


@pytest.fixture(scope="module")
def named(transcriber: Transcriber) -> Iterator[Served]:
    """A server with names of its own."""
    with served(transcriber, allowed_hosts="asr.example, inner.example, other.example") as running:
        yield running


@pytest.mark.parametrize(
    ("origin", "headers", "code"),
    [
        ("https://asr.example", {"Host": "asr.example"}, "upgrade_required"),
        ("https://asr.example:8443", {"Host": "asr.example:8443"}, "upgrade_required"),
        ("https://asr.example:8443", {"Host": "asr.example"} | FORWARDED, "upgrade_required"),  # nginx's $host
        ("https://asr.example:8443", {"Host": "asr.example", "Via": "1.1 proxy"}, "upgrade_required"),
        ("https://asr.example", {"Host": "asr.example:443"}, "upgrade_required"),  # its $host:$server_port
        ("https://asr.example", {"Host": "ASR.example"}, "upgrade_required"),
        ("https://asr.example", {"Host": "127.0.0.1:8000", "X-Forwarded-Host": "asr.example"}, "upgrade_required"),
        ("https://asr.example", {"Host": "x", "X-Forwarded-Host": "asr.example, inner.example"}, "upgrade_required"),
        ("https://[2001:db8::1]:8443", {"Host": "[2001:db8::1]"} | FORWARDED, "upgrade_required"),
        ("https://asr.example:8443", {"Host": "asr.example"}, "origin"),  # $host alone, or a server on port 443 itself
        ("http://localhost:3000", {"Host": "localhost"}, "origin"),
        ("https://asr.example:8443", {"Host": "asr.example:8000"} | FORWARDED, "origin"),
        ("moz-extension://asr.example", {"Host": "asr.example"}, "origin"),
        ("moz-extension://asr.example", {"Host": "asr.example"} | FORWARDED, "origin"),
        ("https://asr.example", {"Host": "127.0.0.1:8000"}, "origin"),
        ("https://asr.example", {"Host": "asr.example:8000"}, "origin"),
        ("https://asr.example", {"Host": "127.0.0.1:8000", "X-Forwarded-Host": "other.example"}, "origin"),
        ("https://asr.example.evil.example", {"Host": "asr.example"}, "origin"),
        ("null", {"Host": "null"}, "origin"),
    ],
)
def test_a_page_of_the_server_is_its_own_behind_a_proxy_too(
    named: Served, origin: str, headers: dict[str, str], code: str
) -> None:
    answer = named.post("/v1/realtime", headers={"Origin": origin, **headers})
    assert answer.json()["error"]["code"] == code
    if code == "origin":
        assert f"asked as {headers['Host']}" in answer.json()["error"]["message"]
        assert "proxy_set_header Host $http_host" in answer.json()["error"]["message"]


def test_websockets_of_other_pages_are_refused(transcriber: Transcriber) -> None:
    with served(transcriber, cors_origins=PAGE) as server:
        for foreign in ("https://evil.example", "http://127.0.0.1:1", "null"):
            assert refusal(server, Origin(foreign)) == "origin"
        for own in (None, Origin(PAGE), Origin(server.url)):
            assert refusal(server, own) == "unknown"


@pytest.mark.parametrize(
    "text", ["*,https://a.example", "https://a.example/", "a.example", "https://A.example", "null"]
)
def test_origins_that_no_browser_sends_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"ASR_CORS_ORIGINS.*expected origins with commas between, or \*"):
        load_settings({"ASR_CORS_ORIGINS": text})
    assert load_settings({"ASR_CORS_ORIGINS": f"{PAGE}, http://[::1]:8080"}).cors_origins


def test_admin_calls_need_no_key_on_this_machine(server: Served) -> None:
    assert server.get(ORDER).status_code == 404
    assert server.post(ORDER, headers=LOCAL).status_code == 404


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X-Forwarded-For": "192.0.2.7"}, "through a proxy"),
        ({"Forwarded": "for=192.0.2.7"}, "through a proxy"),
        ({"CF-Connecting-IP": "192.0.2.7"}, "through a proxy"),
        ({"Host": "rebound.example:8000"}, "rebound.example:8000, not for localhost"),
        ({"Host": "[::1"}, "not for localhost"),
        ({"Origin": "http://localhost:8000"}, "from a page"),
        ({"Sec-Fetch-Site": "cross-site"}, "from a page"),
    ],
)
def test_admin_calls_that_may_be_of_another_are_refused(server: Served, headers: dict[str, str], words: str) -> None:
    answer = server.post(ORDER, headers={**LOCAL, **headers})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_local")
    assert words in answer.json()["error"]["message"]
    assert "ASR_ADMIN_KEY" in answer.json()["error"]["message"]


def test_admin_calls_in_the_http_of_a_bare_proxy_are_refused(server: Served) -> None:
    """nginx's `proxy_pass` alone adds no header, but asks in HTTP/1.0."""
    with socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as connection:
        connection.sendall(f"POST {ORDER} HTTP/1.0\r\nHost: 127.0.0.1:8000\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"through a proxy" in answer


def test_admin_calls_from_another_machine_need_the_key(settings: Settings) -> None:
    def call(access: Access, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(create_app(ServerState(), access=access), client=("192.0.2.7", 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
                return await client.post(ORDER, headers=headers)

        return asyncio.run(ask())

    keyless = call(Access())
    assert (keyless.status_code, keyless.json()["error"]["code"]) == (403, "not_local")
    assert "192.0.2.7" in keyless.json()["error"]["message"]
    keyed = read_access(settings.model_copy(update={"admin_key": SecretStr(OPERATOR)}))
    assert call(keyed).status_code == 401
    assert call(keyed, **bearer(OPERATOR), Origin=PAGE).status_code == 404


def test_the_operators_key_and_callers_keys_open_different_doors(transcriber: Transcriber) -> None:
    with served(transcriber, admin_key=SecretStr(OPERATOR), api_key=SecretStr(CALLER)) as server:
        for headers in ({}, bearer(CALLER)):
            answer = server.get(ORDER, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_admin_key")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert server.get(ORDER, headers=bearer(OPERATOR)).status_code == 404
        assert server.get("/v1/models", headers=bearer(OPERATOR)).status_code == 401
        assert server.get("/v1/models", headers=bearer(CALLER)).status_code == 200


def test_the_container_gets_the_keys_and_the_files(tmp_path: Path) -> None:
    for name in ("keys", "crt", "key"):
        (tmp_path / name).touch()
    environment = {
        "ASR_OUT_DIR": str(tmp_path / "out"),
        "ASR_ADMIN_KEY": OPERATOR,
        "ASR_KEYS_FILE": str(tmp_path / "keys"),
        "ASR_TLS_CERT_FILE": str(tmp_path / "crt"),
        "ASR_TLS_KEY_FILE": str(tmp_path / "key"),
    }
    service = override.describe(load_settings(environment), root=Path("/"), environment=environment)["services"]["asr"]
    given = service["environment"]
    assert given["ASR_ADMIN_KEY"] == OPERATOR
    for name, variable in (("keys", "KEYS_FILE"), ("crt", "TLS_CERT_FILE"), ("key", "TLS_KEY_FILE")):
        assert f"{tmp_path / name}:{given[f'ASR_{variable}']}:ro" in service["volumes"]


def test_a_file_that_the_container_would_miss_is_named(tmp_path: Path) -> None:
    settings = load_settings({"ASR_OUT_DIR": str(tmp_path / "out"), "ASR_TLS_CERT_FILE": str(tmp_path / "crt")})
    with pytest.raises(KitError, match=r"ASR_TLS_CERT_FILE: .*/crt is no file"):
        override.write_host_file(settings)
    assert not (tmp_path / "out").exists()


def test_a_support_bundle_tells_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_OUT_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("ASR_API_KEY", CALLER)
    monkeypatch.setenv("ASR_ADMIN_KEY", OPERATOR)
    log = tmp_path / "out" / "logs" / "server-8000.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"a proxy was asked for {CALLER} and {OPERATOR}\n", "utf-8")
    bundle = support_bundle.collect(load_settings(), tmp_path)
    with tarfile.open(bundle.path) as archive:
        archive.extractall(tmp_path / "read", filter="data")
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "read").rglob("*") if path.is_file()]
    assert any("ASR_ADMIN_KEY=********" in text for text in texts)
    assert any("a proxy was asked for ********" in text for text in texts)
    assert not any(key in text for key in (CALLER, OPERATOR) for text in texts)
