"""A vLLM as a child of the kit, from start to end, with a small package in vLLM's place."""

import json
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

import httpx
import pytest
import vllm_package
from engine import free_port
from invoking import INVOKE
from processes import LONG, await_end, kill, lines_until
from serving import lines
from tree import bare_environment
from vllm_package import child, spec

from env.errors import FaultError, KitError
from env.sources import PROJECT
from runtime.engines.vllm.log_parser import LogParser
from runtime.engines.vllm.process import VllmProcess
from runtime.host.processes import ProcessHandle
from runtime.server.engine_manager import ServerStoppedError

STAGES = [
    "starting vLLM",
    "starting the engine",
    "loading weights",
    "loading weights, 0 %",
    "loading weights, 50 %",
    "measuring memory",
    "warming up vLLM",
    "recording graphs, 40 %",
    "opening the port",
]
# A program that starts a child and waits to be killed.
STARTER = """
import json, sys, time
from runtime.engines.vllm.process import VllmProcess
from runtime.engines.vllm.command import LaunchSpec

child = VllmProcess(LaunchSpec(**json.load(sys.stdin)), on_stage=lambda _: None, on_end=lambda _: None)
child.start(60)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where the stand-in for vLLM is imported from."""
    vllm_package.write(tmp_path)
    return tmp_path


def processes(url: str) -> tuple[ProcessHandle, ProcessHandle]:
    """The API server and the engine core."""
    told = httpx.get(f"{url}/health", timeout=LONG).json()
    return ProcessHandle.of(told["pid"]), ProcessHandle.of(told["core"])


def test_a_life(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with child(spec(site)) as (made, events):
        made.start(LONG)
        assert made.facts["vllm"] == "0.18.0+stand.in"
        assert made.facts["device"] == "cpu"
        assert events.stages == STAGES
        server, core = processes(made.url)
        assert made.pid == server.pid
        made.stop(LONG)
        assert not server.alive
        assert not core.alive
        assert made.pid is None
    assert events.ends == []
    told = [record.getMessage() for record in caplog.records]
    assert "vLLM on cpu: GPU KV cache size: 699,008 tokens" in told
    assert "vLLM on cpu: Shutdown initiated (timeout=7)" in told
    assert not [words for words in told if "eager" in words or "rope_scaling" in words or "noise" in words]


def test_its_environment_is_not_the_kits(site: Path) -> None:
    made = spec(site)
    with child(made) as (running, _):
        running.start(LONG)
        told = httpx.get(f"{running.url}/health", timeout=LONG).json()
    assert told["argv"] == ["vllm", *made.command[2:]]
    assert not [name for name in told["environ"] if name.startswith("ASR_") or name == "KIT_STARTER"]


def test_a_start_that_fails_says_why(site: Path) -> None:
    with child(spec(site, "broken")) as (made, events):
        with pytest.raises(FaultError) as raised:
            made.start(LONG)
        assert made.pid is None
    assert raised.value.subject == "vLLM on cpu"
    assert raised.value.reason.startswith("has ended while starting vLLM, exit code 1: RuntimeError: NPU out of memory")
    assert "ASR_VLLM_MEMORY_SHARE" in raised.value.advice
    assert events.ends == []


def test_a_start_that_takes_too_long_is_given_up(site: Path) -> None:
    with child(spec(site, "slow")) as (made, _):
        with pytest.raises(FaultError, match=r"not ready after 1 s.*ASR_VLLM_START_SECONDS"):
            made.start(1)
        assert made.pid is None


def test_a_start_can_be_interrupted(site: Path) -> None:
    def interrupt(_: int, __: FrameType | None) -> None:
        raise ServerStoppedError

    def tell(stage: str) -> None:
        if stage == "loading weights":
            signal.pthread_kill(main, signal.SIGUSR1)

    before, main = signal.signal(signal.SIGUSR1, interrupt), threading.get_ident()
    made = VllmProcess(spec(site, "slow"), on_stage=tell, on_end=lambda _: None)
    try:
        with pytest.raises(ServerStoppedError):
            made.start(LONG)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert made.pid is None


def test_any_end_that_nobody_asked_for_is_told_once(site: Path) -> None:
    with child(spec(site)) as (made, events):
        made.start(LONG)
        _, core = processes(made.url)
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{made.url}/die", timeout=LONG)
        assert events.ended.wait(LONG)
        await_end(core)
    assert events.ends == ["exit code 0"]


def test_a_killed_server_leaves_no_core(site: Path) -> None:
    with child(spec(site)) as (made, events):
        made.start(LONG)
        server, core = processes(made.url)
        kill(server)
        await_end(core)
        assert events.ended.wait(LONG)
    assert events.ends[0].startswith("SIGKILL")


def test_one_that_does_not_end_is_killed(site: Path) -> None:
    with child(spec(site, "deaf")) as (made, events):
        made.start(LONG)
        server, core = processes(made.url)
        made.stop(0.2)
        assert not server.alive
        assert not core.alive
    assert events.ends == []


def test_none_is_started_after_it_was_stopped(site: Path) -> None:
    with child(spec(site)) as (made, _):
        made.stop(LONG)
        with pytest.raises(KitError, match="before it was started"):
            made.start(LONG)


def test_none_outlives_a_starter_that_is_killed(site: Path) -> None:
    made = spec(site)
    told = {"name": made.name, "command": made.command, "environment": dict(made.environment), "port": made.port}
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as starter:
        assert starter.stdin
        json.dump(told, starter.stdin)
        starter.stdin.close()
        pid = int(next(lines(starter)))
        server, core = processes(f"http://127.0.0.1:{made.port}")
        assert server.pid == pid
        starter.kill()
    await_end(server)
    await_end(core)


def test_one_alone_in_the_foreground(site: Path) -> None:
    interpreter, port = site / "python", free_port()
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n', encoding="utf-8")
    interpreter.chmod(0o755)
    environment = bare_environment(
        ASR_PROFILE="cpu",
        ASR_DEVICE="cpu",
        ASR_VLLM_PYTHON=str(interpreter),
        ASR_PORT=str(port),
        ASR_VLLM_KEY="hush",
    )
    with subprocess.Popen([INVOKE, "vllm"], env=environment, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as program:
        told = list(lines_until(lines(program), "Application startup complete."))
        assert told[0] == f"vLLM on cpu serves demo, for ASR_VLLM_URL=http://HOST:{port} where ASR_MODEL is the same\n"
        answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=LONG).json()
        assert answer["pid"] == program.pid
        assert answer["environ"]["VLLM_API_KEY"] == "hush"
        core = ProcessHandle.of(answer["core"])
        program.terminate()
        assert program.wait(LONG) == 0
    await_end(core)


def test_no_samples_get_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    reader = LogParser("vLLM", lambda _: None)
    for line in (
        "(APIServer pid=7) ERROR 11-23 08:40:10 [serving.py:1] ValueError: failed on data=[array([0.25, -0.5])]",
        "(APIServer pid=7) ValueError: failed on array([0.25, -0.5], dtype=float32)",
    ):
        reader.read(line)
    assert "failed on" in caplog.text
    assert "0.25" not in caplog.text
    assert "0.25" not in reader.cause()[0]


def test_a_core_that_dies_is_named_as_the_cause() -> None:
    reader = LogParser("vLLM", lambda _: None)
    prefix = "(APIServer pid=7) ERROR 11-23 08:40:10 "
    reader.read(f"{prefix}[core_client.py:705] Engine core proc EngineCore died unexpectedly, shutting down client.")
    reader.read(f"{prefix}[async_llm.py:707] AsyncLLM output_handler failed.")
    reader.read(
        f"{prefix}[async_llm.py:707] EngineDeadError: EngineCore encountered an issue. See stack trace (above)."
    )
    reason, cure = reader.cause()
    assert "died unexpectedly" in reason
    assert "dmesg" in cure
