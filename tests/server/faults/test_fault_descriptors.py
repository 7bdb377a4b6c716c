"""More connections than the server has descriptors for: they wait, the log says so once, and it goes on."""

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from serving import PATIENCE, SERVE, lines
from tree import bare_environment

from env.sources import PROJECT

SPARE = 8  # descriptors that the server has left
CLIENTS = 60
WAITING, AGAIN = "connections wait to be accepted", "connections are accepted again"


@pytest.fixture
def process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A server that is a program of its own."""
    environment = bare_environment(ASR_PROFILE="cpu", ASR_DEVICE="cpu", ASR_OUT_DIR=str(tmp_path / "out"))
    with subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def test_a_server_without_descriptors_says_so_once_and_goes_on(process: "subprocess.Popen[str]") -> None:
    log = lines(process)
    port = next(int(line.split()[1]) for line in log if line.startswith("PORT"))
    url = f"http://127.0.0.1:{port}/health/ready"
    assert httpx.get(url, timeout=PATIENCE).status_code == 200
    numbers = (int(link.name) for link in Path(f"/proc/{process.pid}/fd").iterdir())
    limit = max(numbers) + 1 + SPARE
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with ExitStack() as stack:
        for _ in range(CLIENTS):  # each is sent a part of a request, so that it is not closed for idling
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            client.sendall(b"POST /v1/nothing HTTP/1.1\r\n")
        told = [next(line for line in log if WAITING in line)]
    assert f"Too many open files; this process may open {limit}" in told[0]
    assert httpx.get(url, timeout=PATIENCE).status_code == 200  # which waits its turn
    for line in log:
        told.append(line)
        if AGAIN in line:
            break
    assert [WAITING in line for line in told] == [True] + [False] * (len(told) - 1)
    assert len(told) < CLIENTS  # no line for each of them
