"""A server that `invoke start` did not start is found all the same, and never called absent; and vice versa."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import check_engine, docker, free_port, stand_in_base
from invoking import assert_refused, invoke
from processes import await_ready, port_of_its_own, stand_in, start

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.ops.process import foreign
from runtime.ops.process.status import status

SERVER = (PROJECT / "tests" / "support" / "process_server.py").read_text(encoding="utf-8")


class Contained:
    """A server in a container with the labels that compose gives it, as those of `make up` have."""

    def __init__(self, out: Path) -> None:
        base, port = stand_in_base(), free_port()
        self.variables = {"ASR_PORT": str(port), "ASR_OUT_DIR": str(out)}
        labels = [f"project=qwen3-asr-{port}", "service=asr"]
        options = [word for label in labels for word in ("--label", f"com.docker.compose.{label}")]
        options += ["--env", "ASR_HOST=0.0.0.0", "--env", f"ASR_PORT={port}", "--publish", f"127.0.0.1:{port}:{port}"]
        self.name = f"qwen3-asr-{port}_asr_1"
        docker("run", "--detach", "--name", self.name, *options, base, "python3", "-uc", SERVER, "ready")
        await_ready(f"http://127.0.0.1:{port}")

    def type(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return invoke(*words, **self.variables)


@pytest.fixture(scope="module")
def contained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contained]:
    server = Contained(tmp_path_factory.mktemp("contained"))
    yield server
    docker("rm", "--force", server.name)


def test_the_server_of_make_up_is_found(contained: Contained) -> None:
    shown = contained.type("status")
    assert shown.returncode == 0, shown.stderr
    assert "state    ready" in shown.stdout
    assert f"run by   the container {contained.name} of make up (Up " in shown.stdout
    assert "to do    make logs; make restart; make down" in shown.stdout
    logs = contained.type("logs", "--lines", "5")
    assert logs.returncode == 0, logs.stderr
    assert "serving" in logs.stdout


@pytest.mark.parametrize(
    ("task", "target"), [("stop", "make down"), ("restart", "make restart"), ("start", "make down")]
)
def test_what_is_for_make_names_its_target(task: str, target: str, contained: Contained) -> None:
    who = f"invoke {task}: the server on port {contained.variables['ASR_PORT']} is the container {contained.name}"
    assert_refused(contained.type(task), who, f"→ {target}")
    assert docker("inspect", "--format", "{{.State.Running}}", contained.name) == "true"


def test_a_container_that_has_ended_is_told(contained: Contained) -> None:
    docker("kill", contained.name)
    shown = contained.type("status", "--json")
    assert shown.returncode == 3
    told = json.loads(shown.stdout)
    assert (told["state"], told["ready"]) == ("failed", False)
    assert "(Exited (137)" in told["managed_by"]
    assert "serving" in contained.type("logs").stdout
    assert contained.type("stop").returncode == 0


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with port_of_its_own(tmp_path) as made:
        yield made


@pytest.fixture
def alone(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that somebody typed, or systemd runs."""
    here = {"ASR_HOST": "127.0.0.1", "ASR_PORT": str(settings.port)}
    with subprocess.Popen(stand_in("ready"), env={**os.environ, **here}) as server:
        await_ready(f"http://127.0.0.1:{settings.port}")
        yield server
        server.terminate()


def test_a_server_that_runs_alone_is_found(settings: Settings, alone: "subprocess.Popen[bytes]") -> None:
    found = status(settings)
    assert (found.state, found.exit_code) == ("ready", 0)
    assert f"pid {alone.pid}" in found.manager
    with pytest.raises(KitError, match=f"kill {alone.pid} drains it"):
        foreign.check_not_foreign(settings, "stop")


@pytest.fixture
def unit(alone: "subprocess.Popen[bytes]") -> Iterator[str]:
    """The unit of systemd that it is in, as far as its cgroup tells."""
    name = f"qwen3-asr-{alone.pid}.service"
    hierarchies = [Path("/sys/fs/cgroup", part) for part in ("systemd", "unified", "")]
    group = next(path for path in hierarchies if (path / "cgroup.procs").exists()) / name
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(alone.pid))
    except OSError as error:
        pytest.skip(f"who runs the tests may make no cgroup: {error}")
    yield name
    alone.terminate()
    alone.wait()
    group.rmdir()


def test_the_unit_of_systemd_is_named(settings: Settings, unit: str) -> None:
    assert f"{unit} of systemd" in status(settings).manager
    for task, command in (
        ("stop", "sudo systemctl stop"),
        ("restart", "sudo systemctl restart"),
        ("logs", "journalctl --unit"),
    ):
        with pytest.raises(KitError, match=f"→ {command} {re.escape(unit)}"):
            foreign.check_not_foreign(settings, task)


def test_make_names_the_server_of_invoke_start(settings: Settings) -> None:
    check_engine()
    start(settings)
    variables = {"ASR_PORT": str(settings.port), "ASR_OUT_DIR": str(settings.out_dir)}
    for task in ("container.ps", "container.logs"):
        assert_refused(invoke(task, **variables), "invoke start runs the server here", "invoke stop")
    down = invoke("container.down", **variables)
    assert down.returncode == 0, down.stderr
    assert f"No server in a container on port {settings.port} → invoke start runs the server here" in down.stdout
    assert status(settings).state == "ready"
