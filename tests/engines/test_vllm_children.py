"""The vLLM engine with servers that it starts itself: the programs are real, and hand on to a stand-in for vLLM."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from vllm_server import LONGEST, StandIn, vllm_server

from env.errors import KitError
from env.sources import load_settings
from runtime.audio import load
from runtime.demo import Clip
from runtime.engines import EngineError, Observer, Utterance
from runtime.engines.vllm.launcher import LAUNCHER_MARK
from runtime.transcriber import Transcriber, limits, open_transcriber

FACTS = {"device": "cpu", "vllm": "0.18.0"}
# What is started in place of an interpreter that has vLLM: a relay to the stand-in's port.
PROGRAM = f"""#!{sys.executable}
import os, socket, socketserver, sys, threading

def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(("127.0.0.1", int(os.environ["STAND_IN"]))) as far:
            back = threading.Thread(target=pump, args=(far, self.request))
            back.start()
            pump(self.request, far)
            back.join()

socketserver.ThreadingTCPServer.allow_reuse_address = True
port = int(sys.argv[sys.argv.index("--port") + 1])
print("{LAUNCHER_MARK} facts: " + '{json.dumps(FACTS)}', flush=True)
with socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler) as server:
    server.daemon_threads = True
    server.serve_forever()
"""


@pytest.fixture
def server(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with vllm_server(transcriber) as stand_in:
        monkeypatch.setenv("STAND_IN", str(stand_in.port))
        yield stand_in


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "python"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return {"ASR_ENGINE": "vllm", "ASR_DEVICE": "cpu", "ASR_VLLM_PYTHON": str(program)}


@pytest.fixture(scope="module")
def utterance(transcriber: Transcriber, speech: list[Clip]) -> Utterance:
    samples = load(speech[0].path, limits=limits(transcriber.settings)).samples
    return Utterance(samples, transcriber.prompt_builder.build(), 64)


def children() -> set[int]:
    """The processes that this one has started in groups of their own."""
    return {child.pid for child in psutil.Process().children() if os.getpgid(child.pid) == child.pid}


def test_the_kit_starts_a_server_and_ends_it(server: StandIn, variables: dict[str, str], utterance: Utterance) -> None:
    before = children()
    stages: list[str] = []

    class StageRecorder(Observer):
        def starting(self, stage: str) -> None:
            stages.append(stage)

    with open_transcriber(load_settings(variables), observers=[StageRecorder()]) as opened:
        (pid,) = children() - before
        assert opened.engine.submit([utterance])[0].result().tokens
        device = opened.device
        assert (device.name, device.silicon, device.is_npu, device.reports_memory) == ("cpu", "CPU", False, True)
        assert device.description().endswith(" cores, vLLM 0.18.0")
        assert device.versions == {"vllm": "0.18.0"}
        used = device.memory()
        assert 1 << 20 < used.used <= used.peak < used.total
    assert children() <= before
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert stages[-1] == "vLLM on cpu: decoding its first audio"
    assert len(server.heard) == 1


def test_a_server_that_is_killed_is_started_again_and_nothing_is_lost(
    server: StandIn, variables: dict[str, str], utterance: Utterance, transcriber: Transcriber
) -> None:
    expected = transcriber.engine.submit([utterance])[0].result()
    before = children()
    with open_transcriber(load_settings({**variables, "ASR_VLLM_REPLICAS": "2"})) as opened:
        first = children() - before
        assert len(first) == 2
        fault = server.fault("hold")
        streams = opened.engine.submit([utterance] * 4)
        assert fault.reached.wait(LONGEST)
        os.kill(min(first), signal.SIGKILL)
        fault.release.set()
        assert [stream.result() for stream in streams] == [expected] * 4
        while any(server.trouble for server in opened.engine.status().servers):
            assert opened.engine.submit([utterance])[0].result() == expected
        again = children() - before
        assert len(again) == 2
        assert len(again - first) == 1
    assert children() <= before


def test_without_another_the_engine_fails_with_its_server(
    server: StandIn, variables: dict[str, str], utterance: Utterance
) -> None:
    before = children()
    with open_transcriber(load_settings(variables)) as opened:
        faults = [server.fault("hold") for _ in range(3)]
        streams = opened.engine.submit([utterance] * 3)
        assert all(fault.reached.wait(LONGEST) for fault in faults)
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        for stream in streams:
            with pytest.raises(EngineError, match=r"no server is left: vLLM on cpu: .*SIGKILL"):
                stream.result()
    assert children() <= before


def test_one_that_cannot_be_started_again_says_why(
    server: StandIn, variables: dict[str, str], utterance: Utterance, caplog: pytest.LogCaptureFixture
) -> None:
    before = children()
    with open_transcriber(load_settings({**variables, "ASR_VLLM_REPLICAS": "2"})) as opened:
        assert opened.engine.submit([utterance])[0].result().tokens
        program = Path(variables["ASR_VLLM_PYTHON"])
        program.write_text(f"#!/bin/sh\necho '{LAUNCHER_MARK} refuses: no librosa → install it'\nexit 2\n")
        os.kill(min(children() - before), signal.SIGKILL)
        while "no librosa" not in caplog.text:
            assert opened.engine.submit([utterance])[0].result().tokens
    assert "no librosa → install it" in caplog.text
    assert len(server.heard) > 1


def test_one_that_is_too_slow_says_how_far_it_was(server: StandIn, variables: dict[str, str]) -> None:
    server.health = 503
    settings = load_settings(variables).model_copy(update={"vllm_start_seconds": 2.0})
    words = r"vLLM on cpu: not ready after 2 s; it was .*ASR_VLLM_START_SECONDS"
    with pytest.raises(KitError, match=words), open_transcriber(settings):
        pass


def test_an_interrupted_start_leaves_nothing(server: StandIn, variables: dict[str, str]) -> None:
    server.health = 503
    before = children()

    class Interrupt(Observer):
        def starting(self, stage: str) -> None:  # noqa: ARG002 - any
            os.kill(os.getpid(), signal.SIGINT)  # as a terminal sends it: to the process, not to this thread

    with pytest.raises(KeyboardInterrupt), open_transcriber(load_settings(variables), observers=[Interrupt()]):
        pass
    assert children() <= before
