"""The end of a log, and what is added to it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from env.errors import KitError
from runtime.host.processes import ProcessHandle
from runtime.ops.process.status import follow, last_errors, tail
from runtime.ops.process.supervisor import rotate


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "server.log"
    path.write_bytes(b"one\ntwo\r\nthree\xff\nKitError: four")
    return path


class Writer:
    """A process that lives until it is told to end."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.identity = ProcessHandle.of(process.pid)

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture
def writer() -> Iterator[Writer]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield Writer(process)


def add(log: Path, data: bytes) -> None:
    with log.open("ab") as file:
        file.write(data)


def test_the_end_of_a_log(log: Path) -> None:
    assert tail(log, 2) == ["three\N{REPLACEMENT CHARACTER}", "KitError: four"]
    assert tail(log, 100)[:2] == ["one", "two"]
    assert tail(log, 100, start=4) == tail(log, 3)
    assert tail(log, 100, start=10_000) == tail(log, 4)  # the log was emptied after that place was noted
    assert tail(log, 0) == []
    assert list(follow(log, None, 2)) == tail(log, 2)


def test_errors_are_picked_out(log: Path) -> None:
    add(log, b'\n0 failures, no terrors\n{"level": "error", "message": "x"}\n')
    assert last_errors(log, 5) == ["KitError: four", '{"level": "error", "message": "x"}']
    assert last_errors(log, 1) == ['{"level": "error", "message": "x"}']
    assert last_errors(log.with_name("none.log"), 5) == []


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"none\.log: is not there.*invoke start"):
        tail(tmp_path / "none.log", 5)
    with pytest.raises(KitError, match="Is a directory"):
        tail(tmp_path, 5)


def test_following_goes_on_until_the_server_ends(log: Path, writer: Writer) -> None:
    lines = follow(log, writer.identity, 1)
    add(log, b" and a half\n\xe4\xb8")
    assert next(lines) == "KitError: four and a half"
    add(log, b"\xad\nfive\n")
    assert [next(lines), next(lines)] == ["中", "five"]
    add(log, b"last, without a newline")
    writer.end()
    assert list(lines) == ["last, without a newline"]


def test_following_a_log_that_is_put_aside(log: Path, writer: Writer) -> None:
    """Whether its beginning is cut off or it is emptied: no line is shown twice."""
    log.write_text("".join(f"line {number}\n" for number in range(2000)))
    lines = follow(log, writer.identity, 1)
    assert next(lines) == "line 1999"
    rotate(log, max_bytes=1, files=2)
    add(log, b"line 2000\n")
    assert next(lines) == "line 2000"
    writer.end()
    assert list(lines) == []


def test_following_a_log_that_is_emptied(log: Path, writer: Writer) -> None:
    lines = follow(log, writer.identity, 2)
    assert [next(lines), next(lines)] == ["two", "three\N{REPLACEMENT CHARACTER}"]
    log.write_bytes(b"new\n")
    assert next(lines) == "new"
    writer.end()
    assert list(lines) == []
