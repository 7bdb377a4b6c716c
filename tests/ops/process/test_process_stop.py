"""Stopping: patience, haste, and certainty about who is signalled."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import lines_until, log_of, port_of_its_own, processes, start

from env.errors import KitError
from env.settings import Settings
from runtime.host.processes import ProcessHandle
from runtime.ops.process import state
from runtime.ops.process.control import stop
from runtime.ops.process.status import follow, status


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with port_of_its_own(tmp_path) as made:
        yield made


def test_a_server_that_drains_too_long(settings: Settings) -> None:
    server = start(settings, "deaf")
    supervisor, _ = processes(settings)
    settings = settings.model_copy(update={"drain_seconds": 0.0})
    with pytest.raises(KitError, match=f"pid {server.pid}: has not ended after 0 s.*--now"):
        stop(settings, margin=0)
    assert list(lines_until(follow(state.state_files(settings).log, supervisor, 100), "deaf to SIGTERM"))
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
def stranger() -> Iterator[ProcessHandle]:
    """A living process that is none of the kit's, as one that got a recycled pid."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield ProcessHandle.of(process.pid)
        assert process.poll() is None, "was signalled"


def test_a_recycled_pid_is_never_signalled(
    settings: Settings, stranger: ProcessHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SETTLE_TIMEOUT", 0.1)
    files = state.state_files(settings)
    recycled = ProcessHandle(stranger.pid, stranger.started - 1)
    files.log.parent.mkdir(parents=True)
    files.log.touch()
    with state.open_lock(files) as lock:
        state.ServiceRecord("http://127.0.0.1:9", files.log, 0, recycled, recycled).write(files.record)
        assert stop(settings, now=True) is None
        assert status(settings).exit_code == 3
        assert state.try_lock(lock)
        for now in (False, True):
            with pytest.raises(KitError, match=r"nothing was signalled.*fuser"):
                stop(settings, now=now)
        assert status(settings).state == "unknown"
        with pytest.raises(KitError, match="is held"):
            start(settings)


def test_a_record_that_was_cut_off(settings: Settings) -> None:
    start(settings)
    stop(settings)
    state.state_files(settings).record.write_text('{"url": "http')
    assert status(settings).state == "absent"
    assert not start(settings).already
