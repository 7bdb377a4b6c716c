"""The log of `invoke start` does not grow for ever, and nobody else reads it."""

import ctypes
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from processes import LONG, port_of_its_own, start

from env.settings import Settings
from runtime.ops.process import state
from runtime.ops.process.control import stop
from runtime.ops.process.status import tail
from runtime.ops.process.supervisor import COLLAPSE_RANGE, LIBC, rotate, rotated_path

MIB = 1 << 20


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with port_of_its_own(tmp_path) as made:
        yield made.model_copy(update={"log_max_mib": 1, "log_files": 3})


def logs(folder: Path) -> dict[str, str]:
    """What each log holds."""
    return {path.name.split(".", 1)[1]: path.read_text() for path in sorted(folder.iterdir())}


def test_the_log_of_a_running_server_is_put_aside(settings: Settings) -> None:
    start(settings)
    log = state.state_files(settings).log
    inode = log.stat().st_ino
    for fill in "abc":
        with log.open("a") as server:  # as its own lines come
            server.write(fill * MIB)
        deadline = monotonic() + LONG
        while log.stat().st_size >= MIB:
            assert monotonic() < deadline
            sleep(0.05)
    assert log.stat().st_ino == inode
    stop(settings)
    kept = logs(log.parent)
    assert list(kept) == ["1.log", "2.log", "log"]
    assert [set(text) for text in (kept["2.log"], kept["1.log"])] == [{"b"}, {"c"}]
    assert "stopped, exit code 0" in kept["log"]
    assert state.read_state(state.state_files(settings)).record.log_start == 0  # type: ignore[union-attr]


def numbers(directory: Path) -> list[int]:
    """What stands in all logs, from the oldest on."""
    logs = sorted(directory.iterdir(), key=lambda path: -int(path.name.split(".")[1].replace("log", "0")))
    return [int(line) for path in logs for line in path.read_text().split()]


def test_all_that_was_written_is_kept_in_order(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("a", buffering=1) as file:
        rotated = 0
        for number in range(2000):
            file.write(f"{number}\n")
            rotated += rotate(log, max_bytes=1000, files=1000)
    assert rotated > 5
    assert numbers(tmp_path) == list(range(2000))


@pytest.fixture
def cuttable(tmp_path: Path) -> Path:
    """A directory in which the beginning of a file can be cut off."""
    trial = tmp_path / "trial"
    trial.write_bytes(bytes(MIB))
    with trial.open("r+b") as file:
        if LIBC.fallocate(file.fileno(), COLLAPSE_RANGE, ctypes.c_int64(0), ctypes.c_int64(MIB // 2)):
            pytest.skip("this file system cannot cut off the beginning of a file")
    trial.unlink()
    return tmp_path


def test_each_line_of_a_log_that_is_cut_is_a_json_object(cuttable: Path) -> None:
    log = cuttable / "server.log"
    log.write_text("".join(f"{json.dumps({'event': number})}\n" for number in range(2000)))
    assert rotate(log, max_bytes=1, files=2)
    kept = [json.loads(line)["event"] for path in (rotated_path(log, 1), log) for line in path.read_text().splitlines()]
    assert kept == list(range(2000))
    (first,) = tail(log, 1000)[:1]
    assert first.startswith('{"event"')


@pytest.mark.parametrize("max_bytes", [16 << 10, MIB])
def test_a_writer_that_does_not_wait_loses_nothing(cuttable: Path, max_bytes: int) -> None:
    log, count = cuttable / "server.log", 2_000_000
    with log.open("ab") as file:
        writer = subprocess.Popen(["seq", str(count)], stdout=file)
    rotated = 0
    while writer.poll() is None:
        rotated += rotate(log, max_bytes=max_bytes, files=1000)
    assert rotated
    assert numbers(cuttable) == list(range(1, count + 1))


def test_a_writer_stays_in_order_where_a_log_is_emptied(tmp_path: Path) -> None:
    """It goes on while its log is copied and emptied; what it writes just between the two may be missing."""
    log, count = tmp_path / "server.log", 20_000
    loop = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo $i; done"  # a line a write
    with log.open("ab") as file:
        writer = subprocess.Popen(["sh", "-c", loop], stdout=file)
    while writer.poll() is None:
        rotate(log, max_bytes=1000, files=1000)  # less than a block
    found = numbers(tmp_path)
    assert found[0] == 1
    assert sorted(set(found)) == found


def test_fewer_logs_than_before_leave_none_of_the_others(settings: Settings) -> None:
    log = state.state_files(settings).log
    log.parent.mkdir(parents=True)
    others = [log.parent / name for name in ("server.other.log", f"{log.stem}0.7.log")]
    for path in [*(rotated_path(log, number) for number in range(1, 13)), *others]:
        path.touch()
    start(settings)
    stop(settings)
    assert {path.name for path in log.parent.glob("*.log")} == {
        *(path.name for path in (log, rotated_path(log, 1), rotated_path(log, 2), *others))
    }


def test_a_log_of_which_no_copy_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("old")
    assert not rotate(log, max_bytes=4, files=1)
    assert rotate(log, max_bytes=3, files=1)
    assert logs(tmp_path) == {"log": ""}


def test_a_copy_that_cannot_be_written_costs_no_line(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("old")
    (tmp_path / "server.part").mkdir()
    with pytest.raises(OSError, match=r"server\.part"):
        rotate(log, max_bytes=1, files=2)
    assert log.read_text() == "old"


def test_what_is_under_out_is_for_its_owner_alone(settings: Settings) -> None:
    before = os.umask(0o022)
    try:
        start(settings)
    finally:
        os.umask(before)
    log = state.state_files(settings).log
    log.write_text("x" * MIB)
    deadline = monotonic() + LONG
    while not log.with_suffix(".1.log").exists():
        assert monotonic() < deadline
        sleep(0.05)
    folders = [settings.out_dir, *(path for path in settings.out_dir.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    for path in (log, log.with_suffix(".1.log"), state.state_files(settings).lock):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
