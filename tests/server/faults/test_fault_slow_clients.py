"""Clients that send a byte now and then, or never read: they wait, and nobody else does."""

import errno
import os
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from serving import PATIENCE, TRANSCRIPTIONS, Served, served

from runtime.demo import Clip
from runtime.server import protocol
from runtime.transcriber import Transcriber

UPLOADS, READERS = 200, 50

HEAD = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=y\r\n"
PART = '--y\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'


@pytest.fixture
def server(transcriber: Transcriber) -> Iterator[Served]:
    """A server around the demo model."""
    with served(transcriber) as running:
        yield running


def connect(server: Served) -> socket.socket:
    """A connection that takes in little unread."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", server.http_server.port))
    return connection


@contextmanager
def clients(server: Served, count: int) -> Iterator[Sequence[socket.socket]]:
    """So many connections."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(server)) for _ in range(count)]


def test_slow_uploads_and_readers_block_nobody(server: Served, speech: list[Clip]) -> None:
    with clients(server, UPLOADS) as uploads, clients(server, READERS) as readers:
        for upload in uploads:
            upload.sendall((HEAD + f"Expect: 100-continue\r\nContent-Length: {10**6}\r\n\r\n").encode())
            assert upload.recv(1000).startswith(b"HTTP/1.1 100")
            upload.sendall(PART.encode())
        for reader in readers:  # of far more than the buffers on the way hold
            reader.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
            assert reader.recv(8).startswith(b"HTTP/1.1")
        assert server.server_state.accepted == UPLOADS
        for upload in uploads:
            upload.sendall(b"\0")
        for fields in ({}, {"stream": "true"}):
            answer = server.post(files={"file": speech[0].path.read_bytes()}, data=fields)
            assert answer.status_code == 200
            assert speech[0].text in answer.text
        assert server.server_state.accepted >= UPLOADS
    assert server.server_state.wait_idle(PATIENCE)


def test_who_never_ends_a_head_is_left(
    transcriber: Transcriber, speech: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REQUEST_HEAD_TIMEOUT", 0.2)
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
    unread = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"
    with served(transcriber) as server, clients(server, 4) as (silent, dripping, again, leftover):
        dripping.sendall(request)
        again.sendall(request + b"\r\n" + request)
        leftover.sendall(unread)
        assert silent.recv(1) == b""
        assert dripping.recv(1) == b""
        for answered in (again, leftover):
            with answered.makefile("rb") as answer:
                assert answer.read().count(b"HTTP/1.1") == 1
        heard = server.post(files={"file": speech[0].path.read_bytes()})
        assert heard.json()["text"] == speech[0].text


def server_side(connection: socket.socket) -> socket.socket:
    """The other end of a connection, which this process holds too."""
    mine = (
        link.name for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and "socket" in str(link.readlink())
    )
    for number in mine:
        with suppress(OSError), socket.socket(fileno=os.dup(int(number))) as end:
            if end.getpeername() == connection.getsockname():
                return end.dup()
    raise AssertionError("the server has not accepted it")


def test_who_never_reads_is_left(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNACKNOWLEDGED_TIMEOUT", 0.3)
    with served(transcriber) as server, clients(server, 1) as (reader,):
        reader.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        assert reader.recv(8).startswith(b"HTTP/1.1")
        with server_side(reader) as end:
            given_up = select.poll()
            given_up.register(end, 0)  # for errors alone
            assert given_up.poll(PATIENCE * 1000)
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ETIMEDOUT)
