"""start, stop, restart, status, logs and clear-cache as an operator types them, with the real server."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import free_port

from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime.ops.process import state
from runtime.ops.process.control import start, stop
from runtime.ops.process.status import follow

TASKS = (sys.executable, "-m", "invoke")


class Terminal:
    """Where the tasks are typed, with settings of its own."""

    def __init__(self, out: Path) -> None:
        self.variables = {
            "ASR_PROFILE": "cpu",
            "ASR_DEVICE": "cpu",
            "ASR_PORT": str(free_port()),
            "ASR_OUT_DIR": str(out),
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")}
        self.environment = {**inherited, **self.variables}

    @property
    def settings(self) -> Settings:
        return load_settings(self.variables)

    def type(self, *words: str) -> "subprocess.CompletedProcess[str]":
        with self.open(*words) as process:
            out, err = process.communicate(timeout=300)
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def open(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*TASKS, *words],
            cwd=PROJECT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path / "out")
    yield opened
    stop(opened.settings, now=True, grace=0)


def test_a_life_of_the_server(terminal: Terminal) -> None:
    port = terminal.settings.port
    started = terminal.type("start")
    assert started.returncode == 0, started.stderr
    assert f"Ready: http://127.0.0.1:{port}" in started.stdout
    assert "Starting: " in started.stderr
    shown = terminal.type("status", "--json")
    assert shown.returncode == 0
    before = json.loads(shown.stdout)
    assert before["ready"]
    assert f"pid {before['pid']}, log {before['log']}" in started.stdout
    assert before["device"]["name"] == "cpu"
    assert (before["queue"]["requests"], before["engine_restarts"]) == (0, 0)
    cleared = terminal.type("clear-cache")
    assert cleared.returncode == 0, cleared.stderr
    assert f"(the server on port {port})" in cleared.stdout

    with terminal.open("logs", "--follow", "--lines", "1000") as following:
        assert following.stdout
        assert any("ready" in line for line in iter(following.stdout.readline, ""))
        restarted = terminal.type("restart")
        out, err = following.communicate()
    assert restarted.returncode == 0, restarted.stderr
    assert re.search(rf"Stopped: pid {before['pid']}, after \d+\.\d s, 0 requests answered\n", restarted.stdout)
    assert "stopped, exit code 0" in out
    assert (following.returncode, err) == (0, "The server has ended.\n")

    shown = terminal.type("status")
    assert shown.returncode == 0
    assert "state    ready" in shown.stdout
    assert f"pid      {before['pid']}," not in shown.stdout
    last = terminal.type("logs", "--lines", "1")
    assert last.stdout.count("\n") == 1
    stopped = terminal.type("stop")
    assert "Stopped: pid " in stopped.stdout
    assert terminal.type("status").returncode == 3
    again = terminal.type("stop")
    assert (again.returncode, again.stdout) == (0, f"No server runs on port {port}.\n")


def test_ctrl_c_while_the_server_loads(terminal: Terminal) -> None:
    with terminal.open("start") as process:
        assert process.stderr
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert first.startswith("Starting: ")
    assert process.returncode == 130
    assert "the server was stopped before it was ready" in err
    assert "Traceback" not in err
    assert not state.is_locked(state.state_files(terminal.settings).lock)


def test_a_server_that_cannot_start(terminal: Terminal) -> None:
    terminal.environment["ASR_MODEL"] = "/nowhere/model"
    result = terminal.type("start")
    assert result.returncode == 1
    assert "/nowhere/model" in result.stderr
    shown = terminal.type("status", "--json")
    assert shown.returncode == 3
    assert json.loads(shown.stdout)["state"] == "failed"
    assert "The server does not run." in terminal.type("logs", "--follow").stderr


def test_a_server_that_others_reach_without_a_key_is_warned_of(terminal: Terminal) -> None:
    terminal.environment["ASR_HOST"] = "192.0.2.1"  # RFC 5737: nobody's, so that nothing is opened here
    warning = "the server listens on 192.0.2.1 and asks for no key: whoever reaches it may use it → set ASR_API_KEY"
    for task in ("serve", "start"):
        result = terminal.type(task)
        assert warning in result.stderr.replace("The server", "the server")
        assert "cannot be listened on" in result.stderr
    terminal.environment["ASR_API_KEY"] = "long-enough"
    assert "asks for no key" not in terminal.type("serve").stderr


def test_following_ends_with_ctrl_c_and_with_the_reader(terminal: Terminal) -> None:
    files = state.state_files(terminal.settings)
    files.log.parent.mkdir(parents=True)
    files.log.write_text("line\n" * 100_000)
    with state.open_lock(files) as lock:
        state.try_lock(lock)
        this = state.ProcessHandle.of(os.getpid())
        state.ServiceRecord("http://127.0.0.1:9", files.log, 0, this, this).write(files.record)
        with terminal.open("logs", "--follow", "--lines", "1") as process:
            assert process.stdout
            assert process.stdout.readline() == "line\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        assert (process.returncode, err) == (0, "\n")
        with terminal.open("logs", "--lines", "100000") as process:
            assert process.stdout
            assert process.stdout.readline() == "line\n"
            process.stdout.close()
            assert process.stderr
            err = process.stderr.read()
        assert (process.returncode, err) == (0, "")


def test_ctrl_c_while_a_server_drains(terminal: Terminal) -> None:
    command = [sys.executable, str(PROJECT / "tests" / "support" / "process_server.py"), "deaf"]
    server = start(terminal.settings, on_stage=lambda _: None, command=command)
    found = state.read_state(state.state_files(terminal.settings))
    with terminal.open("stop") as process:
        assert any(line == "deaf to SIGTERM" for line in follow(server.log, found.process, 100))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "the server still ends" in err
    assert "stage    deaf" in terminal.type("status").stdout


def test_what_a_task_refuses(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", terminal.settings.port)):
        result = terminal.type("start")
        assert result.returncode == 1
        assert "is held by pid" in result.stderr
    result = terminal.type("clear-cache", "--operators")
    assert result.returncode == 2
    assert "ASR_OP_CACHE_DIR" in result.stderr
    result = terminal.type("logs")
    assert result.returncode == 1
    assert "invoke start" in result.stderr
    result = terminal.type("clear-cache", "--downloads", "--dry-run")
    assert result.returncode == 0
    assert "would be freed" in result.stdout
