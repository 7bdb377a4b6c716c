"""ASR_HOST over IPv6 and as localhost: where the server answers, who callers are, and every address made of it."""

import errno
import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine import free_port
from fake_hosts import case
from invoking import assert_refused, invoke
from serving import PATIENCE, served
from websockets.sync.client import connect
from websockets.typing import Origin

from env.errors import KitError
from env.sources import PROJECT, SettingsError, load_settings
from runtime.ops.deploy import override, standalone
from runtime.ops.doctor import machine
from runtime.server.app import create_app
from runtime.server.http import run_http_server
from runtime.server.state import ServerState
from runtime.transcriber import Transcriber
from runtime.urls import has_ipv6, url

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6: ::1 cannot be listened on")
LIVE = "/health/live"


def lives(address: str, port: int) -> bool:
    """Whether a server answers at an address."""
    try:
        return httpx.get(f"http://{address}:{port}{LIVE}", timeout=PATIENCE).status_code == 200
    except httpx.ConnectError:
        return False


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("::", "::"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("2001:DB8::0A", "2001:db8::a"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("LocalHost", "localhost"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_address_has_one_spelling(given: str, kept: str) -> None:
    assert load_settings({"ASR_HOST": given}).host == kept


@pytest.mark.parametrize("given", ["asr.example.com", "1.2.3", "300.0.0.1", "fe80::1%eth0", ":::", "[::1]:8000"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match=r"ASR_HOST.*expected IPv4 or IPv6 address, or localhost"):
        load_settings({"ASR_HOST": given})


@needs_ipv6
@pytest.mark.parametrize(
    ("address", "answered"),
    [
        ("::", ["127.0.0.1", "[::1]"]),
        ("localhost", ["127.0.0.1", "[::1]"]),
        ("::1", ["[::1]"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
    ],
)
def test_it_answers_where_it_is_told_to(address: str, answered: list[str]) -> None:
    with run_http_server(create_app(ServerState()), host=address, port=0) as http_server:
        assert [each for each in ("127.0.0.1", "[::1]") if lives(each, http_server.port)] == answered


class WithoutIpv6(socket.socket):
    """Of a kernel that was started with ipv6.disable=1."""

    def __init__(self, family: int = -1, *kind: Any, **options: Any) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        super().__init__(family, *kind, **options)


@pytest.mark.parametrize("address", ["::", "localhost"])
def test_without_ipv6_the_other_family_is_enough(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", WithoutIpv6)
    with run_http_server(create_app(ServerState()), host=address, port=0) as http_server:
        assert lives("127.0.0.1", http_server.port)


def test_an_address_that_the_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("2001:db8::1", "192.0.2.1"):
        with (
            pytest.raises(KitError, match=r"cannot be listened on: .*set ASR_HOST to an address of this machine"),
            run_http_server(create_app(ServerState()), host=address, port=0),
        ):
            pass
    monkeypatch.setattr(socket, "socket", WithoutIpv6)
    with (
        pytest.raises(KitError, match=r"\[::1\]:0: cannot be listened on: .*not supported"),
        run_http_server(create_app(ServerState()), host="::1", port=0),
    ):
        pass


@needs_ipv6
@pytest.mark.parametrize("holder", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("address", ["localhost", "::"])
def test_a_port_taken_on_either_family_is_named(holder: str, address: str) -> None:
    family = socket.AF_INET6 if ":" in holder else socket.AF_INET
    with socket.create_server((holder, 0), family=family) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(KitError, match=rf"{port}: cannot be listened on: .*ASR_PORT"),
            run_http_server(create_app(ServerState()), host=address, port=port),
        ):
            pass


@needs_ipv6
def test_callers_over_ipv4_are_known_by_their_address(
    transcriber: Transcriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "runtime.server.middleware")
    with served(transcriber, host="::", requests_per_minute=1) as server:
        port = server.http_server.port
        for address in ("127.0.0.1", "[::1]"):  # each of which is a caller of its own
            at = f"http://{address}:{port}"
            assert [httpx.get(f"{at}/v1/models", timeout=PATIENCE).status_code for _ in range(2)] == [200, 429]
            assert httpx.get(f"{at}/admin/status", timeout=PATIENCE).status_code == 200
    clients = {getattr(record, "client", None) for record in caplog.records if record.getMessage() == "request"}
    assert clients == {"127.0.0.1", "::1"}


@needs_ipv6
def test_a_session_over_ipv6_of_the_servers_own_page(transcriber: Transcriber) -> None:
    with served(transcriber, host="::1") as server:
        place = f"[::1]:{server.http_server.port}"
        with connect(f"ws://{place}/v1/realtime", proxy=None, origin=Origin(f"http://{place}")) as connection:
            assert json.loads(connection.recv(PATIENCE))["type"] == "session.created"


@pytest.mark.parametrize(
    ("address", "place", "published"),
    [
        ("127.0.0.1", "127.0.0.1", ["127.0.0.1:8123:8123"]),
        ("0.0.0.0", "127.0.0.1", ["0.0.0.0:8123:8123"]),
        ("::", "127.0.0.1", ["8123:8123"]),
        ("::1", "[::1]", ["[::1]:8123:8123"]),
        ("2001:db8::1", "[2001:db8::1]", ["[2001:db8::1]:8123:8123"]),
        ("localhost", "localhost", ["127.0.0.1:8123:8123", *(["[::1]:8123:8123"] if has_ipv6() else [])]),
    ],
)
def test_what_is_made_of_it(address: str, place: str, published: list[str]) -> None:
    settings = load_settings({"ASR_HOST": address, "ASR_PORT": "8123"})
    assert url(settings) == f"http://{place}:8123"
    assert override.describe(settings, root=Path("/"), environment={})["services"]["asr"]["ports"] == published


def test_in_its_container_the_server_listens_on_both_families_and_a_vllm_on_the_one_that_there_always_is() -> None:
    for variables, inside in (({}, "::"), ({"ASR_VLLM_ALONE": "true", "ASR_STACK": "vllm"}, "0.0.0.0")):
        settings = load_settings({"ASR_HOST": "localhost", **variables})
        assert override.handed_on(settings, {})["ASR_HOST"] == inside


def test_vllm_alone_is_named_by_an_address_that_others_can_use() -> None:
    assert standalone.address(load_settings({"ASR_HOST": "::"})).endswith("http://HOST:8000")
    assert standalone.address(load_settings({"ASR_HOST": "2001:db8::1"})).endswith("http://[2001:db8::1]:8000")
    assert not standalone.warning(load_settings({"ASR_HOST": "::1"}))
    assert not standalone.warning(load_settings({"ASR_HOST": "localhost"}))
    assert "listens on ::" in standalone.warning(load_settings({"ASR_HOST": "::"}))


@needs_ipv6
@pytest.mark.parametrize(
    ("taken", "wanted", "status"),
    [
        ("::1", "::1", "fail"),
        ("::1", "localhost", "fail"),
        ("::1", "::", "fail"),
        ("::1", "127.0.0.1", "pass"),
        ("::1", "0.0.0.0", "pass"),
        ("127.0.0.1", "localhost", "fail"),
        ("127.0.0.1", "::", "fail"),
        ("127.0.0.1", "::1", "pass"),
        ("0.0.0.0", "localhost", "fail"),
        ("0.0.0.0", "::1", "pass"),
    ],
)
def test_doctor_finds_who_is_in_the_way(taken: str, wanted: str, status: str) -> None:
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as holder:
        found = machine.port(case(ASR_HOST=wanted, ASR_PORT=str(holder.getsockname()[1])))
    assert found.status == status
    assert status == "pass" or f"pid {os.getpid()} (" in found.evidence


@needs_ipv6
@pytest.mark.parametrize("address", ["::", "::1", "localhost"])
def test_the_containers_health_check(transcriber: Transcriber, address: str) -> None:
    with served(transcriber, host=address) as server:
        asked = subprocess.run(
            [sys.executable, "-I", "docker/healthcheck.py"],
            cwd=PROJECT,
            env={**os.environ, "ASR_HOST": address, "ASR_PORT": str(server.http_server.port)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (asked.returncode, json.loads(asked.stdout)["status"]) == (0, "ready")


@needs_ipv6
def test_tasks_find_a_server_on_ipv6(tmp_path: Path) -> None:
    port = free_port()
    variables = {"ASR_HOST": "::1", "ASR_PORT": str(port), "ASR_OUT_DIR": str(tmp_path)}
    started = invoke("start", **variables)
    try:
        assert f"Ready: http://[::1]:{port}" in started.stdout, started.stderr
        status = json.loads(invoke("status", "--json", **variables).stdout)
        assert (status["state"], status["url"]) == ("ready", f"http://[::1]:{port}")
        assert status["queue"]["requests"] == 0  # which only an admin call tells
        assert "freed" in invoke("clear-cache", **variables).stdout.lower()
    finally:
        stopped = invoke("stop", **variables)
    assert "Stopped" in stopped.stdout
    with socket.create_server(("::1", port), family=socket.AF_INET6):
        assert_refused(invoke("start", **variables), f"[::1]:{port}: is held by pid")
