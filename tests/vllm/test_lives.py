"""vLLMs that are killed under load, and servers that end: nothing hangs, is lost in silence, or is left."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import await_end, kill
from recordings import joined

from runtime.demo import Clip
from runtime.host.processes import ProcessHandle
from runtime.transcriber import Transcriber

from .loads import Outcome, under_load
from .processes import engine_core, group
from .program import Program, serving

LIMITS = {"ASR_SEGMENT_SECONDS": "8", "ASR_MAX_NEW_TOKENS": "64"}
FAILED = "engine_failed"


@pytest.fixture(scope="module")
def recording(clips: list[Clip], measure: Transcriber) -> bytes:
    """Some minutes of speech: what is killed has much to do."""
    return joined(3 * clips, measure)


@pytest.fixture(scope="module")
def text(recording: bytes, measure: Transcriber) -> str:
    """What is said in it."""
    return measure.transcribe(recording).text


@pytest.fixture(scope="module")
def one(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A server with one vLLM."""
    with serving(python, tmp_path_factory.mktemp("one"), **LIMITS) as program:
        program.log.wait("ready on")
        yield program


def right(outcome: Outcome, text: str) -> bool:
    """Whether all was heard; raises AssertionError unless it is so, or it was said that it is not."""
    if outcome.text:
        assert (outcome.status, outcome.code, outcome.text) == (200, "", text)
        assert outcome.deltas in (None, text)
        return True
    assert outcome.code == FAILED
    assert outcome.status == (503 if outcome.deltas is None else 200)
    return False


@pytest.mark.parametrize("victim", [engine_core, lambda leader: leader], ids=["EngineCore", "API server"])
def test_a_vllm_that_is_killed_is_replaced(
    one: Program, recording: bytes, text: str, victim: Callable[[ProcessHandle], ProcessHandle]
) -> None:
    times = one.log.text.count("ready on")
    (before,) = one.vllms()
    members = [entry.process for entry in group(before)]
    with under_load(one, recording) as asked:
        kill(victim(before))
        answered = [right(future.result(), text) for future in asked]
    assert not all(answered)
    health = one.get("/health/ready")
    assert (health.status_code, health.json()["status"]) == (503, "restarting")
    refused = one.post(files={"file": recording})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, FAILED)
    one.log.wait("ready on", times=times + 1)
    assert one.get("/health/ready").status_code == 200
    (after,) = one.vllms()
    assert after.pid != before.pid
    assert not [member for member in members if member.alive]
    answer = one.post(files={"file": recording})
    assert (answer.status_code, answer.json()["text"]) == (200, text)


def test_sigterm_under_load_loses_nothing(one: Program, recording: bytes, text: str) -> None:
    one.vllms()
    with under_load(one, recording) as asked:
        one.process.send_signal(signal.SIGTERM)
        answered = [right(future.result(), text) for future in asked]
    assert all(answered)
    told = re.search(r"stopped, (\d+) requests? answered", one.end().splitlines()[-1])
    assert told
    assert 0 < int(told[1]) <= len(answered)  # as some may have been answered before the signal came
    assert one.process.returncode == 0
    assert not one.left()


def test_of_two_one_is_killed(python: Path, tmp_path: Path, recording: bytes, text: str) -> None:
    with serving(python, tmp_path, ASR_VLLM_REPLICAS="2", **LIMITS) as program:
        program.log.wait("ready on")
        first, second = program.vllms()
        members = [entry.process for entry in group(first)]
        with under_load(program, recording) as asked:
            kill(engine_core(first))
            answered = [right(future.result(), text) for future in asked]
        assert all(answered)
        assert program.get("/health/ready").status_code == 200
        assert second in program.vllms()
        for member in members:
            await_end(member)
        kill(ProcessHandle.of(program.process.pid))
        for process in program.left():
            await_end(process)


@pytest.mark.parametrize(("number", "stage"), [(signal.SIGINT, "calculates on"), (signal.SIGTERM, "loading weights")])
def test_a_start_is_broken_off(python: Path, tmp_path: Path, number: signal.Signals, stage: str) -> None:
    with serving(python, tmp_path) as program:
        program.log.wait(stage)
        (vllm,) = program.vllms()
        told = program.end(number)
        assert "ready on" not in told
        assert f"draining after {number.name}" in told
        assert "Traceback" not in told
        assert program.process.returncode == 0
        assert not group(vllm)
