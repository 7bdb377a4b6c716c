"""What ends by itself: what is started again, how often, and what is not."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import await_end, kill, lines_until, log_of, port_of_its_own, processes, stand_in, start

from env.errors import KitError
from env.settings import Settings
from runtime.ops.process import state
from runtime.ops.process import status as present
from runtime.ops.process.control import NotStartedError, stop
from runtime.ops.process.control import start as start_process
from runtime.ops.process.status import follow, status
from runtime.restart_policy import Policy


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with port_of_its_own(tmp_path) as made:
        yield made


def test_a_server_that_refuses_to_start_is_not_started_again(settings: Settings) -> None:
    with pytest.raises(NotStartedError, match="exit code 1") as told:
        start(settings, "refuse")
    assert told.value.exit_code == 1
    assert "ASR_MODEL: no such directory" in str(told.value)
    assert log_of(settings).count("no such directory") == 1
    found = status(settings)
    assert (found.state, found.exit_code, found.restarts) == ("failed", 3, 0)
    assert "exit code 1" in found.reason


def test_crashes_are_logged_and_end_in_rest(settings: Settings) -> None:
    with pytest.raises(NotStartedError, match="SIGABRT") as told:
        start(settings, "crash", policy=Policy(restarts=3, pause=0.01))
    assert "3 times within 3600 s" in str(told.value)
    log = log_of(settings)
    assert log.count("about to crash") == 4
    assert re.findall(r"starts again in (\S+) s", log) == ["0.01", "0.02", "0.04"]
    found = status(settings)
    assert (found.state, found.exit_code, found.restarts) == ("failed", 3, 3)
    assert "SIGABRT" in found.reason
    assert any("crashed: SIGABRT" in line for line in found.errors)
    assert "last errors" in present.format_status(found)


def test_the_supervisor_logs_as_the_server_does(settings: Settings) -> None:
    logged_as_json = settings.model_copy(update={"log_format": "json"})
    with pytest.raises(NotStartedError, match="SIGABRT"):
        start(logged_as_json, "crash", policy=Policy(restarts=1, pause=0.01))
    told = [json.loads(line) for line in log_of(settings).splitlines() if line.startswith("{")]
    assert ["crashed: SIGABRT" in line["event"] for line in told] == [True, True]
    assert {line["level"] for line in told} == {"error"}


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
    lines = follow(state.state_files(settings).log, supervisor, 100)
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
