"""vLLM servers that are slow, hang or die, behind the server: who is answered what, and what is told of it."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest
from engine_manager_harness import ManagedServer, run_engine_manager
from fronting import hold, in_front_of, until
from prometheus_text import read, value
from serving import PATIENCE, Served, served
from vllm_server import LONGEST, StandIn, vllm_server

from runtime.demo import Clip, bundled_clips
from runtime.ops.process import status as present
from runtime.ops.process.state import DrainSummary
from runtime.ops.process.status import status
from runtime.restart_policy import Policy
from runtime.transcriber import Transcriber, open_transcriber

AT_ONCE, NEVER = Policy(pause=0.0), Policy(pause=3600.0)


@pytest.fixture
def servers(transcriber: Transcriber) -> Iterator[list[StandIn]]:
    """Two vLLMs."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(vllm_server(transcriber)) for _ in range(2)]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Clients."""
    with ThreadPoolExecutor(16) as clients:
        yield clients


def is_up(server: Served, one: StandIn) -> float | None:
    return value(read(server.url), "asr_vllm_up", server=one.url)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def lose(managed: ManagedServer, server: StandIn) -> None:
    """Have the only one die, which the next request finds out at once."""
    server.die()
    assert code(managed.post(bundled_clips()[0].path.read_bytes())) == (503, "engine_failed")


def test_one_of_two_dies_under_load_and_nobody_notices(
    servers: list[StandIn], speech: list[Clip], pool: ThreadPoolExecutor
) -> None:
    one, other = servers
    with open_transcriber(in_front_of(one, other)) as front, served(front) as server:
        until(lambda: is_up(server, one) == is_up(server, other) == 1)
        held = hold(one, 16)
        asked = [pool.submit(server.post, files={"file": clip.path.read_bytes()}) for clip in speech * 3]
        assert held[0].reached.wait(LONGEST)
        one.die()
        answers = [future.result() for future in asked]
        assert {answer.status_code for answer in answers} == {200}
        assert [answer.json()["text"] for answer in answers] == [clip.text for clip in speech * 3]
        until(lambda: is_up(server, one) == 0)
        assert is_up(server, other) == 1
        troubles = [each["trouble"] for each in server.get("/v1/info").json()["engine"]["servers"]]
        assert (troubles[0] != "", troubles[1]) == (True, "")
        found = status(server.service.settings.model_copy(update={"port": server.http_server.port}))
        assert f"{one.url}: 0 being decoded; {troubles[0]}" in present.format_status(found)
        assert server.get("/health/ready").status_code == 200
        one.faults.clear()
        one.come()
        until(lambda: is_up(server, one) == 1)


def test_with_all_of_them_lost_all_are_told_and_it_comes_back(
    servers: list[StandIn], speech: list[Clip], pool: ThreadPoolExecutor
) -> None:
    audio = speech[0].path.read_bytes()

    def visit(managed: ManagedServer) -> None:
        until(
            lambda: (
                not any(server.trouble for server in managed.server_state.service.transcriber.engine.status().servers)
            )
        )
        for server in servers:
            hold(server, 4)
        first = [server.faults[0] for server in servers]
        asked = [pool.submit(managed.post, audio) for _ in range(4)]
        assert all(fault.reached.wait(LONGEST) for fault in first)
        for server in servers:
            server.die()
            server.faults.clear()
        for future in asked:
            answer = future.result()
            assert code(answer) == (503, "engine_failed")
            assert "no server is left" in answer.json()["error"]["message"]
        ready, told = managed.health()
        assert (ready, told["status"]) == (503, "restarting")
        assert code(managed.post(audio)) == (503, "engine_failed")
        until(lambda: "loading demo again: " in managed.health()[1]["stage"])
        servers[1].come()
        managed.await_ready()
        assert managed.post(audio).json()["text"] == speech[0].text
        assert managed.server_state.restarts == 1
        assert managed.server_state.wait_idle(PATIENCE)

    assert run_engine_manager(in_front_of(*servers), visit, policy=AT_ONCE) == DrainSummary()


def test_those_that_stay_away_for_long_are_waited_for(
    servers: list[StandIn], speech: list[Clip], caplog: pytest.LogCaptureFixture
) -> None:
    settings = in_front_of(servers[0]).model_copy(update={"vllm_start_seconds": 0.5})

    def visit(managed: ManagedServer) -> None:
        lose(managed, servers[0])
        until(lambda: managed.server_state.restarts > 2)
        servers[0].come()
        managed.await_ready()
        assert managed.post(speech[0].path.read_bytes()).json()["text"] == speech[0].text

    run_engine_manager(settings, visit, policy=Policy(restarts=1, pause=0.0))
    assert "the engine cannot be loaded again: vLLM: no server is ready" in caplog.text
    assert "Traceback" not in caplog.text


def test_one_that_hangs_costs_its_requests_their_time_alone(servers: list[StandIn], speech: list[Clip]) -> None:
    audio = speech[0].path.read_bytes()
    settings = in_front_of(servers[0]).model_copy(update={"request_timeout_seconds": 1.0})

    def visit(managed: ManagedServer) -> None:
        (held,) = hold(servers[0], 1)
        assert code(managed.post(audio)) == (504, "timeout")
        assert held.hung_up.wait(LONGEST)
        assert managed.health()[0] == 200
        assert managed.post(audio).json()["text"] == speech[0].text
        assert not managed.server_state.restarts

    run_engine_manager(settings, visit, policy=NEVER)


def test_what_it_refuses_is_a_failed_request_and_no_failed_engine(servers: list[StandIn], speech: list[Clip]) -> None:
    audio = speech[0].path.read_bytes()

    def visit(managed: ManagedServer) -> None:
        before = len(servers[0].heard)
        servers[0].fault(
            "refuse", status=400, message="Input length (5215) exceeds model's maximum context length (4096)."
        )
        answer = managed.post(audio)
        assert code(answer) == (500, "decoding_failed")
        assert "lower ASR_SEGMENT_SECONDS" in answer.json()["error"]["message"]
        until(lambda: len(servers[0].heard) == before + 2)  # the clip that tells whether the engine still works
        assert managed.post(audio).json()["text"] == speech[0].text
        assert not managed.server_state.restarts

    run_engine_manager(in_front_of(servers[0]), visit, policy=NEVER)


def test_sigterm_waits_for_what_a_vllm_decodes(servers: list[StandIn], speech: list[Clip]) -> None:
    audio = speech[0].path.read_bytes()
    answers: list[Future[httpx.Response]] = []

    def visit(managed: ManagedServer) -> None:
        (held,) = hold(servers[0], 1)
        with ThreadPoolExecutor(1) as client:
            answers.append(client.submit(managed.post, audio))
            assert held.reached.wait(LONGEST)
            managed.send(signal.SIGTERM)
            until(lambda: managed.health()[1]["status"] == "draining")
            assert code(managed.post(audio)) == (503, "draining")
            held.release.set()
        assert managed.over.wait(PATIENCE)

    assert run_engine_manager(in_front_of(servers[0]), visit, policy=NEVER) == DrainSummary(answered=1)
    assert answers[0].result().json()["text"] == speech[0].text


def test_stages_are_told_and_logged_once(servers: list[StandIn], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runtime.server")
    (late,) = servers[:1]

    def visit(managed: ManagedServer) -> None:
        lose(managed, late)
        until(lambda: managed.health()[1]["stage"].startswith(f"loading demo again: {late.url}"))
        assert "; the engine has failed: no server is left" in managed.health()[1]["stage"]
        late.come()
        managed.await_ready()

    run_engine_manager(in_front_of(late), visit, policy=AT_ONCE)
    told = [record.getMessage() for record in caplog.records if record.name == "runtime.server.engine_manager"]
    assert any(line.startswith(f"loading demo again: {late.url}") for line in told)
    assert len(told) == len(set(told))


def test_sigterm_while_a_vllm_is_waited_for(servers: list[StandIn]) -> None:
    def visit(managed: ManagedServer) -> None:
        lose(managed, servers[0])
        until(lambda: managed.health()[1]["stage"].startswith("loading demo again: http"))
        managed.send(signal.SIGTERM)
        assert managed.over.wait(PATIENCE)

    assert run_engine_manager(in_front_of(servers[0]), visit, policy=AT_ONCE) == DrainSummary()
