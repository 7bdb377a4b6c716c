"""Starting and stopping: real processes on loopback, most of them a stand-in for the server."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import PROJECT
from engine import free_port

from env.loading import load_settings
from env.settings import Settings
from runtime.errors import KitError
from runtime.ops.process import present, record
from runtime.ops.process.identity import Process, ended
from runtime.ops.process.logs import follow
from runtime.ops.process.start import NotStartedError, Started, StartInterruptedError
from runtime.ops.process.start import start as start_process
from runtime.ops.process.status import status
from runtime.ops.process.stop import stop
from runtime.ops.process.supervisor import USUAL, Policy

LONG = 60  # seconds after which what is awaited will never come


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a port and an output directory of their own; whatever runs there in the end is killed."""
    variables = {"ASR_DEVICE": "cpu", "ASR_PORT": str(free_port()), "ASR_OUT_DIR": str(tmp_path / "out")}
    made = load_settings(variables)
    yield made
    stop(made, now=True, grace=0)
    assert not record.is_held(record.place(made).lock)


def start(settings: Settings, behaviour: str = "ready", *, policy: Policy = USUAL) -> Started:
    return start_process(settings, on_stage=lambda _: None, command=stand_in(behaviour), policy=policy)


def stand_in(behaviour: str) -> list[str]:
    return [sys.executable, str(PROJECT / "tests" / "process_server.py"), behaviour]


def processes(settings: Settings) -> tuple[Process, Process]:
    """The supervisor and the server on record."""
    found = record.look(record.place(settings)).record
    assert found
    assert found.server
    return found.supervisor, found.server


def kill(process: Process) -> None:
    """Kill a process and wait until it has ended."""
    with process.handle() as handle:
        assert handle is not None
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert ended(handle, LONG)


def await_end(process: Process) -> None:
    with process.handle() as handle:
        assert handle is None or ended(handle, LONG)


def log_of(settings: Settings) -> str:
    return record.place(settings).log.read_text(encoding="utf-8")


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
    assert f"pid      {server.pid}, supervisor {found.supervisor}" in present.lines(found)
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
        assert str(record.place(settings).lock) in held
        log = str(record.place(settings).log)
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


def test_a_server_that_refuses_to_start_is_not_started_again(settings: Settings) -> None:
    with pytest.raises(NotStartedError, match="exit code 1") as told:
        start(settings, "refuse")
    assert told.value.exit_code == 1
    assert "ASR_MODEL: no such directory" in str(told.value)
    assert log_of(settings).count("no such directory") == 1
    found = status(settings)
    assert (found.state, found.exit_code, found.restarts) == ("failed", 3, 0)
    assert "exit code 1" in found.reason


def test_only_the_latest_log_is_shown(settings: Settings) -> None:
    start(settings)
    stop(settings)
    with pytest.raises(NotStartedError) as told:
        start(settings, "refuse")
    assert "serving" not in str(told.value)


def test_a_command_that_cannot_be_run(settings: Settings) -> None:
    with pytest.raises(NotStartedError, match="/nowhere/server: No such file"):
        start_process(settings, on_stage=lambda _: None, command=["/nowhere/server"])


def test_crashes_are_logged_and_end_in_rest(settings: Settings) -> None:
    with pytest.raises(NotStartedError, match="SIGABRT") as told:
        start(settings, "crash", policy=Policy(restarts=3, pause=0.01))
    assert "3 times within 3600 s" in str(told.value)
    log = log_of(settings)
    assert log.count("about to crash") == 4
    pauses = [line.rpartition("starts again in ")[2] for line in log.splitlines() if "starts again" in line]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s"]
    found = status(settings)
    assert (found.state, found.exit_code, found.restarts) == ("failed", 3, 3)
    assert "SIGABRT" in found.reason
    assert any("crashed: SIGABRT" in line for line in found.errors)
    assert "last errors" in present.lines(found)


def test_old_crashes_do_not_count(settings: Settings) -> None:
    def after_three(stage: str) -> None:
        if stage.startswith("crashed") and log_of(settings).count("starts again") >= 3:
            stop(settings)

    with pytest.raises(NotStartedError, match="stopped"):
        start_process(
            settings, on_stage=after_three, command=stand_in("crash"), policy=Policy(restarts=1, window=0, pause=0.3)
        )


def test_stopping_does_not_wait_for_the_next_start(settings: Settings) -> None:
    seen = []

    def on_stage(stage: str) -> None:
        if stage.startswith("crashed"):
            seen.append(status(settings))
            stop(settings)

    policy = Policy(pause=3600)
    with pytest.raises(NotStartedError, match="stopped before it was started again; crashed: SIGABRT"):
        start_process(settings, on_stage=on_stage, command=stand_in("crash"), policy=policy)
    assert [(found.state, found.exit_code, found.pid) for found in seen] == [("restarting", 1, None)]
    assert status(settings).state == "stopped"


def test_a_killed_server_comes_back(settings: Settings) -> None:
    first = start(settings, policy=Policy(pause=0.01))
    supervisor, server = processes(settings)
    lines = follow(record.place(settings).log, supervisor, 100)
    assert next(lines).startswith("serving")
    kill(server)
    (told,) = [line for line in lines_until(lines, "serving") if "crashed" in line]
    assert f"SIGKILL (dmesg tells if memory ran out), pid {server.pid}" in told
    again = start(settings)
    assert again.already
    assert again.pid != first.pid
    found = status(settings)
    assert (found.state, found.restarts) == ("ready", 1)
    assert stop(settings)
    assert [line for line in lines if "stopped" in line]  # and there is an end of it


def lines_until(lines: Iterator[str], word: str) -> Iterator[str]:
    for line in lines:
        yield line
        if word in line:
            return


def test_a_server_does_not_outlive_its_supervisor(settings: Settings) -> None:
    start(settings)
    supervisor, server = processes(settings)
    kill(supervisor)
    await_end(server)
    assert "draining after SIGTERM" in log_of(settings)
    found = status(settings)
    assert (found.state, found.exit_code) == ("failed", 3)
    assert "supervisor was killed" in found.reason
    assert not start(settings).already


def test_a_server_that_outlives_its_supervisor_is_stopped_all_the_same(settings: Settings) -> None:
    start(settings, "deaf")
    supervisor, server = processes(settings)
    kill(supervisor)
    assert status(settings).state == "draining"
    with pytest.raises(KitError, match=r"no supervisor.*invoke stop"):
        start(settings)
    stopped = stop(settings, now=True, grace=0)
    assert stopped is not None
    assert (stopped.pid, stopped.killed) == (server.pid, True)


def test_a_server_that_ends_by_itself_is_not_started_again(settings: Settings) -> None:
    start(settings)
    supervisor, server = processes(settings)
    os.kill(server.pid, signal.SIGTERM)
    await_end(supervisor)
    found = status(settings)
    assert (found.state, found.exit_code, found.restarts) == ("stopped", 3, 0)
    assert "by another than invoke stop" in found.reason


def test_a_server_that_drains_too_long(settings: Settings) -> None:
    server = start(settings, "deaf")
    supervisor, _ = processes(settings)
    settings = settings.model_copy(update={"drain_seconds": 0.0})
    with pytest.raises(KitError, match=f"pid {server.pid}: has not ended after 0 s.*--now"):
        stop(settings, margin=0)
    assert list(lines_until(follow(record.place(settings).log, supervisor, 100), "deaf to SIGTERM"))
    found = status(settings)
    assert (found.state, found.exit_code) == ("draining", 1)
    stopped = stop(settings, now=True, grace=0)
    assert stopped is not None
    assert (stopped.pid, stopped.killed) == (server.pid, True)
    assert status(settings).exit_code == 3


def test_now_is_sigint_first(settings: Settings) -> None:
    start(settings)
    stopped = stop(settings, now=True)
    assert stopped is not None
    assert not stopped.killed
    assert "draining after SIGINT" in log_of(settings)


@pytest.fixture
def stranger() -> Iterator[Process]:
    """A living process that is none of the kit's, as one that got a recycled pid."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield Process.of(process.pid)
        assert process.poll() is None, "was signalled"


def test_a_recycled_pid_is_never_signalled(
    settings: Settings, stranger: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "PATIENCE", 0.1)
    spot = record.place(settings)
    recycled = Process(stranger.pid, stranger.started - 1)
    spot.log.parent.mkdir(parents=True)
    spot.log.touch()
    with record.opened_lock(spot) as lock:
        record.Record("http://127.0.0.1:9", spot.log, 0, recycled, recycled).write(spot.record)
        assert stop(settings, now=True) is None
        assert status(settings).exit_code == 3
        assert record.take(lock)
        for now in (False, True):
            with pytest.raises(KitError, match=r"nothing was signalled.*fuser"):
                stop(settings, now=now)
        assert status(settings).state == "unknown"
        with pytest.raises(KitError, match="is held"):
            start(settings)


def test_a_record_that_was_cut_off(settings: Settings) -> None:
    start(settings)
    stop(settings)
    record.place(settings).record.write_text('{"url": "http')
    assert status(settings).state == "absent"
    assert not start(settings).already


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


@pytest.mark.parametrize(("behaviour", "state"), [("loading", "starting"), ("draining", "draining")])
def test_a_server_says_how_it_is(behaviour: str, state: str, settings: Settings) -> None:
    def on_stage(stage: str) -> None:
        if stage == behaviour:
            found = status(settings)
            assert (found.state, found.exit_code, found.stage) == (state, 1, behaviour)
            stop(settings)

    with pytest.raises(NotStartedError, match="stopped"):
        start_process(settings, on_stage=on_stage, command=stand_in(behaviour))


def test_what_answers_oddly_is_not_ready(settings: Settings) -> None:
    def on_stage(_: str) -> None:
        if "serving" in log_of(settings):
            assert status(settings).state == "starting"
            stop(settings)

    with pytest.raises(NotStartedError, match="stopped"):
        start_process(settings, on_stage=on_stage, command=stand_in("odd"))


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
