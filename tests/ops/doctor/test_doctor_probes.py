"""What the doctor looks at: another host's files and nothing of this one, commands that fail or hang, what it keeps."""

import os
import select
from pathlib import Path

import pytest
from fake_hosts import answer, fault, path, script, write

from runtime.host.probe import CommandResult, Host, PathState, parse_states, states_text

__all__ = ["path"]  # a fixture


def test_links_stay_inside_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "/data/Ascend/driver/version.info", "Version=1\n")
    (root / "usr/local").mkdir(parents=True)
    (root / "usr/local/Ascend").symlink_to("/data/Ascend")
    (root / "usr/local/up").symlink_to("../../../../../data/Ascend")
    (root / "etc").symlink_to("/etc")
    (root / "round").symlink_to("/round")
    write(tmp_path, "/data/Ascend/driver/version.info", "Version=outside\n")
    host = Host(root)
    assert host.text("/usr/local/Ascend/driver/version.info") == "Version=1\n"
    assert host.text("/usr/local/up/driver/version.info") == "Version=1\n"
    assert host.text("/etc/passwd") == ""
    assert host.text("/../../data/Ascend/driver/../driver/version.info") == "Version=1\n"
    assert host.state("/round").kind == "unreadable"
    assert host.matches("/usr/local/Ascend/*") == ["/usr/local/Ascend/driver"]


def test_no_command_of_this_host_is_run_for_another(tmp_path: Path, path: Path) -> None:
    script(path, "npu-smi", f"touch {tmp_path}/ran; echo here")
    (tmp_path / "root").mkdir()
    assert Host(tmp_path / "root").run("npu-smi-info", ["npu-smi"]) == CommandResult("", "not recorded")
    answer(tmp_path / "root", "npu-smi-info", "there\n")
    assert Host(tmp_path / "root").run("npu-smi-info", ["npu-smi"]) == CommandResult("there\n")
    fault(tmp_path / "root", "npu-smi-info", "exit code 3: no", "half\n")
    assert Host(tmp_path / "root").run("npu-smi-info", ["npu-smi"]) == CommandResult("half\n", "exit code 3: no")
    assert not (tmp_path / "ran").exists()


def test_a_command_is_run_once(tmp_path: Path, path: Path) -> None:
    script(path, "count", f"echo x >> {tmp_path}/runs; cat {tmp_path}/runs")
    host = Host()
    assert host.run("count", ["count"]) == host.run("count", ["count"]) == CommandResult("x\n")
    assert host.answers == {"count": CommandResult("x\n")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo fine; echo noise >&2", CommandResult("fine\n")),
        ("echo half; echo first >&2; echo last >&2; exit 3", CommandResult("half\n", "exit code 3: last")),
        ("echo only; exit 1", CommandResult("only\n", "exit code 1: only")),
        ("exit 4", CommandResult("", "exit code 4")),
        ("kill -ABRT $$", CommandResult("", "ended by SIGABRT")),
        ("printf 'not \\377 utf-8'", CommandResult("not \N{REPLACEMENT CHARACTER} utf-8")),
        ("cat", CommandResult("")),  # no terminal to wait for
    ],
)
def test_how_a_command_ends(text: str, expected: CommandResult, path: Path) -> None:
    script(path, "some", text)
    assert Host().run("some", ["some"]) == expected


def test_a_command_that_is_not_there(path: Path) -> None:
    (path / "some").mkdir()  # as Docker leaves it
    assert Host().run("some", ["some", "info"]) == CommandResult("", "not found")


def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path, path: Path) -> None:
    # The child holds a pipe open for as long as it lives, and nobody else does.
    script(path, "some", f"tail -f /dev/null 9> {tmp_path}/pipe & wait")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert Host().run("some", ["some"], seconds=0.5) == CommandResult("", "no answer within 0.5 s")
        hung_up = select.poll()
        hung_up.register(reader)
        assert hung_up.poll(30_000) == [(reader, select.POLLHUP)]
    finally:
        os.close(reader)


def test_records_read_as_they_were_written() -> None:
    for told in (
        CommandResult("a\nb\n"),
        CommandResult(""),
        CommandResult("part", "exit code 1: # fault: x"),
        CommandResult("", "not found"),
    ):
        assert CommandResult.parse(told.text) == told
    states = {
        "/dev/davinci0": PathState("device", 0o660, 1000, 1000),
        "/usr/local/bin/npu smi": PathState("empty directory", 0o755, 0, 0),
        "/none": PathState("missing"),
    }
    assert parse_states(states_text(states)) == states


def test_states_of_paths(tmp_path: Path) -> None:
    write(tmp_path, "/file")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "empty").mkdir()
    host = Host(tmp_path)
    assert (host.state("/file").kind, host.state("/file").mode) == ("file", 0o640)
    assert host.state("/empty").kind == "empty directory"
    assert host.state("/").kind == "directory"
    assert host.state("/file/inside").kind == "missing"
    assert not host.state("/empty").there
    assert Host().state("/dev/null").kind == "device"
