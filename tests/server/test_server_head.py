"""HEAD and OPTIONS, by which load balancers and `wget --spider` ask."""

import shutil
import socket
import subprocess

import httpx
import pytest
from serving import PATIENCE, Served, loading

FIXED = (
    "/",
    "/static/app.js",
    "/docs",
    "/openapi.json",
    "/v1/models",
    "/v1/models/demo",
    "/health/live",
    "/health/ready",
)
MOVING = ("/metrics", "/v1/info", "/admin/status")  # their content is another each time
BY_REQUEST = ("date", "x-request-id", "content-length")


@pytest.mark.parametrize("path", [*FIXED, *MOVING])
def test_head_is_answered_as_get_without_a_body(server: Served, path: str) -> None:
    get, head = server.get(path), httpx.head(server.url + path, timeout=PATIENCE)
    assert (head.status_code, head.content) == (200, b"")
    kept = [{name: value for name, value in each.headers.items() if name not in BY_REQUEST} for each in (head, get)]
    assert kept[0] == kept[1]
    if path in FIXED:
        assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_nothing_follows_the_head(server: Served) -> None:
    """On the wire, where a body would be taken for the beginning of the next answer."""
    with socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as connection:
        connection.sendall(b"HEAD /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


def test_head_is_refused_where_get_is(server: Served) -> None:
    for path, status in {"/v1/audio/transcriptions": 405, "/nothing": 404, "/v1/models/nothing": 404}.items():
        assert httpx.head(server.url + path, timeout=PATIENCE).status_code == status


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_by_options(server: Served, path: str) -> None:
    answer = httpx.options(server.url + path, timeout=PATIENCE)
    assert answer.status_code == 200
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_while_the_model_loads_it_is_live_and_not_ready_by_any_method() -> None:
    with loading() as (_, port):
        for method in ("GET", "HEAD", "OPTIONS"):
            statuses = [
                httpx.request(method, f"http://127.0.0.1:{port}/health/{name}", timeout=PATIENCE).status_code
                for name in ("live", "ready")
            ]
            assert statuses == [200, 503], method


def test_wget_spider(server: Served) -> None:
    wget = shutil.which("wget")
    if not wget:
        pytest.skip("no wget here: apt-get install wget")
    command = [wget, "--quiet", "--no-proxy", "--spider", f"{server.url}/health/ready"]
    assert subprocess.run(command, check=False, timeout=PATIENCE).returncode == 0
    assert subprocess.run([*command[:-1], f"{server.url}/nothing"], check=False, timeout=PATIENCE).returncode
