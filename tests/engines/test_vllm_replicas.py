"""What happens to utterances when vLLM servers come, fail and go, with stand-ins for them."""

import contextlib
import threading
from collections.abc import Iterator, Sequence

import pytest
from fronting import connected
from vllm_server import LONGEST, StandIn, vllm_server

from env.errors import FaultError, KitError
from env.sources import load_settings
from runtime.audio import load
from runtime.demo import Clip
from runtime.engines import Engine, EngineError, Observer, Utterance
from runtime.transcriber import Transcriber, limits, open_transcriber


@pytest.fixture
def servers(transcriber: Transcriber) -> Iterator[list[StandIn]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(vllm_server(transcriber)) for _ in range(2)]


@pytest.fixture(scope="module")
def utterances(transcriber: Transcriber, speech: list[Clip]) -> list[Utterance]:
    prompt = transcriber.prompt_builder.build()
    return [Utterance(load(c.path, limits=limits(transcriber.settings)).samples, prompt, 64) for c in speech]


@pytest.fixture(scope="module")
def expected(transcriber: Transcriber, utterances: list[Utterance]) -> list[str]:
    return [transcriber.engine.submit([utterance])[0].result().text for utterance in utterances]


class FailureRecorder(Observer):
    """Hears why the engine has failed, and stages of its start."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.stages: list[str] = []
        self.waits = threading.Event()

    def starting(self, stage: str) -> None:
        self.stages.append(stage)
        self.waits.set()

    def failed(self, reason: str) -> None:
        self.failures.append(reason)


def texts(engine: Engine, utterances: Sequence[Utterance]) -> list[str]:
    return [stream.result().text for stream in engine.submit(utterances)]


def test_the_server_that_has_least_in_hand_gets_the_next(servers: list[StandIn], utterances: list[Utterance]) -> None:
    one, other = servers
    with connected(one, other) as opened:
        faults = [server.fault("hold") for server in servers]
        streams = opened.engine.submit([utterances[0]] * 2)
        assert all(fault.reached.wait(LONGEST) for fault in faults)
        assert [server.decoding for server in opened.engine.status().servers] == [1, 1]
        for fault in faults:
            fault.release.set()
        assert [stream.result().truncated for stream in streams] == [False] * 2
    assert [len(server.heard) for server in servers] == [1, 1]


@pytest.mark.parametrize("kind", ["error", "abort", "cut", "end", "lie"])
def test_what_a_server_fails_is_decoded_again(
    servers: list[StandIn], utterances: list[Utterance], expected: list[str], kind: str
) -> None:
    server = servers[0]
    with connected(server) as opened:
        server.fault(kind, after=3)  # type: ignore[arg-type]
        (decoding,) = opened.engine.submit(utterances[:1])
        tokens = list(decoding)
        assert decoding.result().text == expected[0]
        assert tokens == list(decoding.result().tokens)  # those of the first try were not told twice
    assert len(server.heard) == 2


def test_what_fails_again_and_again_fails_alone(servers: list[StandIn], utterances: list[Utterance]) -> None:
    server = servers[0]
    with connected(server) as opened:
        for _ in range(3):
            server.fault("refuse", status=500, message="Format not recognised.")
        (decoding,) = opened.engine.submit(utterances[:1])
        with pytest.raises(KitError, match=r"3 times; the last time .* answers 500: Format not recognised\."):
            decoding.result()
        assert opened.engine.status().failed == ""
        assert texts(opened.engine, utterances[:1])


def test_nothing_is_lost_with_a_server(
    servers: list[StandIn], utterances: list[Utterance], expected: list[str]
) -> None:
    one, other = servers
    with connected(one, other) as opened:
        assert texts(opened.engine, utterances) == expected
        held = [one.fault("hold", after=2) for _ in utterances]
        streams = [*opened.engine.submit(utterances), *opened.engine.submit(utterances)]
        assert held[0].reached.wait(LONGEST)
        one.die()
        assert [stream.result().text for stream in streams] == expected * 2
        status = opened.engine.status()
        assert status.failed == ""
        assert [server.trouble != "" for server in status.servers] == [True, False]
        one.faults.clear()
        one.come()
        count = len(one.heard)
        while len(one.heard) == count:
            assert texts(opened.engine, utterances) == expected


def test_with_the_last_server_the_engine_fails_at_once(servers: list[StandIn], utterances: list[Utterance]) -> None:
    recorder = FailureRecorder()
    with connected(*servers, observers=[recorder], ASR_VLLM_MAX_SEQS="3") as opened:
        engine = opened.engine
        faults = [server.fault("hold") for server in servers for _ in range(9)]
        streams = engine.submit(utterances[:1] * 8)
        assert faults[0].reached.wait(LONGEST)
        for server in servers:
            server.die()
        for stream in streams:
            with pytest.raises(EngineError, match="no server is left"):
                stream.result()
        status = engine.status()
        assert (status.waiting, status.decoding) == (0, 0)
        assert all(server.url in status.failed for server in servers)
        with pytest.raises(EngineError, match="no server is left"):
            engine.submit(utterances[:1])
    assert len(recorder.failures) == 1
    assert "takes no connection" in recorder.failures[0]


def test_what_a_draining_server_has_begun_it_may_finish(
    servers: list[StandIn],
    utterances: list[Utterance],
    expected: list[str],
    transcriber: Transcriber,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = servers[0]
    with connected(server) as opened:
        fault = server.fault("hold")
        (begun,) = opened.engine.submit(utterances[:1])
        assert fault.reached.wait(LONGEST)
        server.drain()
        (late,) = opened.engine.submit(utterances[1:2])
        while "is lost: takes no connection" not in caplog.text:
            threading.Event().wait(0.01)
        with vllm_server(transcriber, port=server.port, health=503) as successor:
            while len(successor.asked) < 3:  # looks at it, lost as it is
                threading.Event().wait(0.01)
            assert not fault.hung_up.is_set()
            fault.release.set()
            assert begun.result().text == expected[0]
            with pytest.raises(EngineError, match="no server is left"):
                late.result()


def test_a_server_that_decodes_nothing_is_not_waited_for(
    servers: list[StandIn], utterances: list[Utterance], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engines.vllm.client.TOKEN_TIMEOUT", 0.5)
    one, other = servers
    with connected(one, other) as opened:
        faults = [one.fault("hold") for _ in range(2)]
        streams = opened.engine.submit(utterances[:4])
        assert faults[0].reached.wait(LONGEST)
        assert [stream.result().text for stream in streams] == expected[:4]
        assert faults[0].hung_up.wait(LONGEST)


def test_one_that_refuses_audio_is_left_to_itself(
    servers: list[StandIn], utterances: list[Utterance], expected: list[str]
) -> None:
    one, other = servers
    one.audio_fault = (400, "At most 0 audio(s) may be provided in one prompt.")
    with connected(one, other) as opened:
        assert texts(opened.engine, utterances) == expected
        (trouble,) = (server.trouble for server in opened.engine.status().servers if server.trouble)
        assert "answers 400: At most 0 audio(s)" in trouble


def test_a_server_that_is_not_well_gets_nothing_and_comes_back(
    servers: list[StandIn], utterances: list[Utterance], expected: list[str]
) -> None:
    one, other = servers
    with connected(one, other) as opened:
        one.health = 503
        one.fault("cut")
        one.fault("cut")
        assert texts(opened.engine, utterances) == expected
        one.health = 200
        count = len(one.heard)
        while len(one.heard) == count:
            assert texts(opened.engine, utterances) == expected


def test_a_server_that_hangs_gets_nothing_more(
    servers: list[StandIn], utterances: list[Utterance], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = servers
    with connected(one, other) as opened:
        monkeypatch.setattr("runtime.engines.vllm.client.REQUEST_TIMEOUT", 0.1)
        held = one.fault("hold")
        begun = [opened.engine.submit([utterance])[0] for utterance in utterances[:2]]
        assert held.reached.wait(LONGEST)
        one.hangs = True
        one.fault("cut")
        assert texts(opened.engine, utterances) == expected
        assert [stream.result().text for stream in begun] == expected[:2]
        assert held.hung_up.wait(LONGEST)
        (trouble,) = {server.trouble for server in opened.engine.status().servers if server.url == one.url}
    assert trouble == "does not answer"


def test_the_first_that_comes_is_waited_for(transcriber: Transcriber, utterances: list[Utterance]) -> None:
    recorder = FailureRecorder()
    late = StandIn(transcriber)
    late.come()
    late.die()  # its port is known now

    def come() -> None:
        assert recorder.waits.wait(LONGEST)
        late.come()

    coming = threading.Thread(target=come)
    coming.start()
    try:
        with connected(late, observers=[recorder]) as opened:
            assert texts(opened.engine, utterances[:1])
    finally:
        coming.join()
        late.die()
    assert recorder.stages[0].startswith(f"{late.url}: waiting for it: takes no connection")


def test_none_that_comes_is_told_with_the_reason(transcriber: Transcriber) -> None:
    absent = StandIn(transcriber)
    absent.come()
    absent.die()
    settings = load_settings({"ASR_ENGINE": "vllm", "ASR_VLLM_URL": absent.url})
    with pytest.raises(FaultError) as caught, open_transcriber(settings.model_copy(update={"vllm_start_seconds": 0.5})):
        pass
    failure = caught.value
    assert f"no server is ready after 0.5 s: {absent.url}: takes no connection" in str(failure)
    assert "invoke vllm" in failure.advice
