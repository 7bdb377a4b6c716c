"""Starting: a server is detached, once on each port, and says how it is."""

import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import LONG, log_of, port_of_its_own, processes, stand_in, start

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.ops.process import state as record
from runtime.ops.process import status as present
from runtime.ops.process.control import NotStartedError, StartInterruptedError, stop
from runtime.ops.process.control import start as start_process
from runtime.ops.process.status import status


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with port_of_its_own(tmp_path) as made:
        yield made


def test_a_server_is_started_asked_and_stopped(settings: Settings) -> None:
    assert status(settings).state == "absent"
    server = start(settings)
    assert server.url == f"http://127.0.0.1:{settings.port}"
    assert not server.already
    found = status(settings)
    assert (found.state, found.exit_code, found.stage, found.pid) == ("ready", 0, "ready", server.pid)
    assert found.memory is not None
    assert found.memory > 1 << 20
    assert found.uptime is not None
    assert 0 <= found.uptime < LONG
    document = found.document()
    assert document["ready"]
    assert document["log"] == str(settings.out_dir / "logs" / f"server-{settings.port}.log")
    assert f"pid      {server.pid}, supervisor {found.supervisor}" in present.format_status(found)
    stopped = stop(settings)
    assert stopped is not None
    assert (stopped.pid, stopped.killed) == (server.pid, False)
    assert "draining after SIGTERM" in log_of(settings)
    after = status(settings)
    assert (after.state, after.exit_code, after.pid) == ("stopped", 3, None)
    assert stop(settings) is None


def test_a_server_is_detached(settings: Settings, tmp_path: Path) -> None:
    with (tmp_path / "mine").open("w") as mine:
        os.set_inheritable(mine.fileno(), True)
        start(settings)
    for process in processes(settings):
        assert os.getsid(process.pid) not in (os.getsid(0), process.pid)
        assert Path(f"/proc/{process.pid}/cwd").readlink() == PROJECT
        held = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert str(tmp_path / "mine") not in held
        assert str(record.state_files(settings).lock) in held
        log = str(record.state_files(settings).log)
        streams = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)]
        assert streams == [os.devnull, log, log]
    supervisor, _ = processes(settings)
    parent = Path(f"/proc/{supervisor.pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) != os.getpid()


def test_a_second_start_finds_the_first(settings: Settings) -> None:
    first, second = start(settings), start(settings)
    assert second.already
    assert second.pid == first.pid
    assert log_of(settings).count("serving") == 1


def test_of_two_starts_at_once_one_starts(settings: Settings) -> None:
    with ThreadPoolExecutor() as pool:
        both = [future.result() for future in [pool.submit(start, settings) for _ in range(2)]]
    assert sorted(server.already for server in both) == [False, True]
    assert both[0].pid == both[1].pid
    assert log_of(settings).count("serving") == 1


def test_a_port_that_another_program_has(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", settings.port)):
        with pytest.raises(KitError, match=f"{settings.port}: is held by pid {os.getpid()} .*ASR_PORT"):
            start(settings)
        found = status(settings)
        assert (found.state, found.exit_code) == ("absent", 3)
        assert f"held by pid {os.getpid()}" in found.reason
        assert stop(settings) is None


def test_only_the_latest_log_is_shown(settings: Settings) -> None:
    start(settings)
    stop(settings)
    with pytest.raises(NotStartedError) as told:
        start(settings, "refuse")
    assert "serving" not in str(told.value)


def test_a_command_that_cannot_be_run(settings: Settings) -> None:
    with pytest.raises(NotStartedError, match="/nowhere/server: No such file"):
        start_process(settings, on_stage=lambda _: None, command=["/nowhere/server"])


def test_a_kernel_without_pidfds(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def old(_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", old)
        with pytest.raises(KitError, match=r"Linux 5\.3.*make up"):
            start(settings)
    assert status(settings).state == "absent"


@pytest.mark.parametrize("folder", ["run", "logs"])
def test_a_directory_that_cannot_be_written(folder: str, settings: Settings) -> None:
    settings.out_dir.mkdir()
    (settings.out_dir / folder).touch()
    with pytest.raises(KitError, match=rf"/{folder}/server-.*: cannot be written: .*ASR_OUT_DIR"):
        start(settings)


def test_interrupting_a_start_stops_the_server(settings: Settings) -> None:
    heard = []

    def on_stage(stage: str) -> None:
        heard.append(stage)
        if stage == "loading":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StartInterruptedError, match="was stopped before it was ready") as told:
        start_process(settings, on_stage=on_stage, command=stand_in("loading"))
    assert told.value.exit_code == 130
    assert heard[-1] == "loading"
    assert status(settings).exit_code == 3


def test_interrupting_a_second_start_leaves_the_server(settings: Settings) -> None:
    def second(_: str) -> None:
        signal.raise_signal(signal.SIGINT)

    def first(stage: str) -> None:
        if stage == "loading":
            with pytest.raises(StartInterruptedError, match="goes on"):
                start_process(settings, on_stage=second)
            found = status(settings)
            assert (found.state, found.exit_code) == ("starting", 1)
            stop(settings)

    with pytest.raises(NotStartedError, match="stopped"):
        start_process(settings, on_stage=first, command=stand_in("loading"))


@pytest.mark.parametrize(
    ("behaviour", "state"), [("loading", "starting"), ("draining", "draining"), ("restarting", "restarting")]
)
def test_a_server_says_how_it_is(behaviour: str, state: str, settings: Settings) -> None:
    def on_stage(stage: str) -> None:
        if stage == behaviour:
            found = status(settings)
            assert (found.state, found.exit_code, found.stage) == (state, 1, behaviour)
            stop(settings)

    with pytest.raises(NotStartedError, match="stopped"):
        start_process(settings, on_stage=on_stage, command=stand_in(behaviour))


def test_a_server_that_is_suspended(settings: Settings) -> None:
    server = start(settings)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        found = status(settings)
        assert time.monotonic() - begun < 5
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert (found.state, found.exit_code, found.pid) == ("unresponsive", 1, server.pid)
    shown = present.format_status(found)
    assert "does not answer within 2 s" in shown
    assert f"kill -CONT {server.pid}" in shown
    assert status(settings).state == "ready"


def test_what_answers_oddly_is_not_ready(settings: Settings) -> None:
    def on_stage(_: str) -> None:
        if "serving" in log_of(settings):
            assert status(settings).state == "starting"
            stop(settings)

    with pytest.raises(NotStartedError, match="stopped"):
        start_process(settings, on_stage=on_stage, command=stand_in("odd"))
