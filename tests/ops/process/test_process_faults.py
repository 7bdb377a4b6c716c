"""A device at fault, told from a server that is set up wrong: the first is tried again, more and more seldom."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import LONG, log_of, port_of_its_own, start
from serving import lines
from simulated_npu import environment

from env.settings import Settings
from env.sources import PROJECT
from runtime.ops.process import state
from runtime.ops.process.control import SERVE_COMMAND, NotStartedError
from runtime.ops.process.control import start as start_process
from runtime.ops.process.status import status
from runtime.restart_policy import DEFAULT_POLICY, EngineFailures, Policy


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with port_of_its_own(tmp_path) as made:
        yield made


def test_a_fault_that_lasts_over_restarts_is_outlived(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    left.write_text("2")
    monkeypatch.setenv("ASR_DEVICE", "cpu")
    monkeypatch.setenv("ASR_OUT_DIR", str(settings.out_dir))
    sick = [sys.executable, str(PROJECT / "tests" / "support" / "sick_server.py"), str(left)]
    start_process(settings, on_stage=lambda _: None, command=sick)
    found = status(settings)
    assert (found.state, found.restarts) == ("ready", 2)
    assert log_of(settings).count("crashed: exit code 70") == 2
    assert log_of(settings).count("[critical]") == 2  # each says why
    lost = EngineFailures.read(state.state_files(settings).engine_failures, time.time(), DEFAULT_POLICY)
    assert len(lost.times) == 2
    assert "error code is 507015" in lost.reason


def test_what_was_lost_often_is_loaded_late_unless_somebody_stops_the_server(settings: Settings) -> None:
    path = state.state_files(settings).engine_failures
    for _ in range(9):
        now = time.time()
        EngineFailures.read(path, now, DEFAULT_POLICY).add(path, now, "the device is gone")
    variables = {"ASR_DEVICE": "cpu", "ASR_PORT": str(settings.port), "ASR_OUT_DIR": str(settings.out_dir)}
    waiting = r"waiting \d+ s before the engine is loaded, .* lost 9 times within 3600 s, at last: the device is gone"
    with subprocess.Popen(
        SERVE_COMMAND,
        cwd=PROJECT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert any(re.search(waiting, line) for line in lines(server))
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{settings.port}/health/ready")
        with refused.value as answer:
            assert re.search(waiting, json.load(answer)["stage"])
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=LONG)
    assert server.returncode == 0
    assert not path.exists()  # whoever starts it now may have mended the device


@pytest.mark.parametrize(("failure", "code"), [("busy", 70), ("none-visible", 70), ("cann", 1)])
def test_exit_codes_tell_a_device_at_fault_from_a_server_set_up_wrong(
    failure: str, code: int, settings: Settings
) -> None:
    variables = {"ASR_DEVICE": "npu", "ASR_PORT": str(settings.port), "ASR_OUT_DIR": str(settings.out_dir)}
    ended = subprocess.run(
        SERVE_COMMAND,
        cwd=PROJECT,
        env=environment(failure, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * LONG,
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert state.state_files(settings).engine_failures.exists() == (code == 70)


def test_a_first_start_in_vain_ends_and_says_why(settings: Settings) -> None:
    with pytest.raises(NotStartedError, match=r"started again once: crashed: exit code 70") as told:
        start(settings, "lost", policy=Policy(restarts=1, pause=0.01))
    assert "the engine: has failed" in str(told.value)
    assert log_of(settings).count("the engine: has failed") >= 2
    assert status(settings).state == "stopped"


def test_pauses_double_up_to_a_longest_and_what_is_old_does_not_count(tmp_path: Path) -> None:
    path, now, pauses = tmp_path / "losses.json", 0.0, []
    for _ in range(12):
        losses = EngineFailures.read(path, now, DEFAULT_POLICY)
        losses.add(path, now, "the device is gone")
        after = EngineFailures.read(path, now, DEFAULT_POLICY)
        pauses.append(after.pause(now, DEFAULT_POLICY))
        assert after.pause(now + pauses[-1], DEFAULT_POLICY) == 0
        now += pauses[-1] + 30  # of loading in vain
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert EngineFailures.read(path, now, DEFAULT_POLICY).reason == "the device is gone"
    assert not EngineFailures.read(path, now + DEFAULT_POLICY.window, DEFAULT_POLICY).times
    path.write_text('{"times": ["yesterday"]}')
    assert EngineFailures.read(path, now, DEFAULT_POLICY) == EngineFailures()
