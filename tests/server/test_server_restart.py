"""An engine that fails: everybody is told, the server loads another one, or ends if that is of no use."""

import gc
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from engine_manager_harness import Device, ManagedServer, run_engine_manager
from serving import PATIENCE, TRANSCRIPTIONS
from simulated_npu import on_npu

from env.settings import Settings
from env.sources import load_settings
from runtime.demo import Clip, bundled_clips
from runtime.ops.process.state import DrainSummary
from runtime.ops.process.supervisor import SETUP_FAULT_CODES
from runtime.restart_policy import Crashes, Policy
from runtime.server.engine_manager import EngineLostError

AT_ONCE, NEVER = Policy(pause=0.0), Policy(pause=3600.0)
LOST = RuntimeError("NPU function error: aclrtSynchronizeStream, error code is 507015")


class Fault(BaseException):
    """What ends the engine's thread."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_crash_is_told_to_all_and_mended(settings: Settings, device: Device, speech: list[Clip]) -> None:
    audio = speech[0].path.read_bytes()
    settings = settings.model_copy(update={"max_batch": 1})

    def visit(managed: ManagedServer) -> None:
        first = managed.server_state.service
        device.hold()
        with ThreadPoolExecutor(6) as pool, httpx.Client(timeout=PATIENCE) as client:
            asked = [pool.submit(managed.post, audio) for _ in range(6)]  # more than are read ahead
            assert device.waits.wait(PATIENCE)
            device.fail(Fault("the device is gone"), times=1, then_hold=True)
            device.goes_on.set()
            for future in asked:
                answer = future.result()
                assert code(answer) == (503, "engine_failed")
                assert int(answer.headers["Retry-After"]) > 0
                assert "the device is gone" in answer.json()["error"]["message"]
            device.goes_on.set()
            managed.await_ready()
            assert client.post(managed.url + TRANSCRIPTIONS, files={"file": audio}).json()["text"] == speech[0].text
        assert managed.health()[0] == 200
        assert managed.server_state.restarts == 1
        assert managed.server_state.service is not first

    assert run_engine_manager(settings, visit, policy=AT_ONCE) == DrainSummary()


def test_while_it_is_mended_the_cause_is_told(
    settings: Settings, device: Device, speech: list[Clip], caplog: pytest.LogCaptureFixture
) -> None:
    audio = speech[0].path.read_bytes()

    def visit(managed: ManagedServer) -> None:
        device.fail(Fault("the device is gone"), times=1)
        assert code(managed.post(audio)) == (503, "engine_failed")
        ready, told = managed.health()
        assert (ready, told["status"]) == (503, "restarting")
        assert "the engine has failed: Fault: the device is gone" in told["stage"]
        assert code(managed.post(audio)) == (503, "engine_failed")
        status = httpx.get(f"{managed.url}/admin/status").json()
        assert (status["status"], status["device"]) == ("restarting", None)
        assert httpx.get(f"{managed.url}/health/live").status_code == 200
        managed.send(signal.SIGTERM)

    run_engine_manager(settings, visit, policy=NEVER)
    assert "restarting in 3600 s: the engine has failed: Fault: the device is gone" in caplog.text


def test_what_is_loading_again_says_so_too(settings: Settings, device: Device, speech: list[Clip]) -> None:
    def visit(managed: ManagedServer) -> None:
        device.fail(Fault("the device is gone"), times=1)
        managed.server_state.engine_failed("for the first time")
        device.hold()
        assert device.waits.wait(PATIENCE)  # in the warm-up
        ready, told = managed.health()
        assert (ready, told["status"]) == (503, "restarting")
        assert told["stage"] == "warming up again: the engine has failed: for the first time"
        device.goes_on.set()  # upon which loading fails
        managed.await_ready()
        assert managed.server_state.restarts == 2
        assert managed.post(speech[0].path.read_bytes()).json()["text"] == speech[0].text

    run_engine_manager(settings, visit, policy=AT_ONCE)


def test_a_device_that_is_lost_is_found_out(settings: Settings, device: Device, speech: list[Clip]) -> None:
    def visit(managed: ManagedServer) -> None:
        device.fail(LOST)
        assert code(managed.post(speech[0].path.read_bytes())) == (500, "decoding_failed")
        managed.server_state.wait_end()
        assert "507015" in managed.server_state.failure
        assert managed.health()[1]["status"] == "restarting"
        managed.send(signal.SIGTERM)

    run_engine_manager(settings, visit, policy=NEVER)


def test_a_bad_utterance_is_no_crash(settings: Settings, device: Device, speech: list[Clip]) -> None:
    audio = speech[0].path.read_bytes()

    def visit(managed: ManagedServer) -> None:
        device.fail(ValueError("what a surprise"), times=1)
        assert code(managed.post(audio)) == (500, "decoding_failed")
        assert managed.post(audio).json()["text"] == speech[0].text
        assert managed.health()[0] == 200
        managed.send(signal.SIGTERM)

    assert run_engine_manager(settings, visit, policy=NEVER) == DrainSummary()


def test_what_cannot_be_mended_ends_the_process(settings: Settings, device: Device) -> None:
    def visit(managed: ManagedServer) -> None:
        device.fail(LOST)
        managed.server_state.engine_failed("for the first time")
        assert managed.over.wait(PATIENCE)

    with pytest.raises(EngineLostError, match=r"loaded again once.*507015") as lost:
        run_engine_manager(settings, visit, policy=Policy(restarts=1, pause=0.0))
    assert lost.value.exit_code == 70
    assert lost.value.exit_code not in SETUP_FAULT_CODES


def test_pauses_double_within_the_window() -> None:
    crashes = Crashes(Policy(restarts=3, window=10, pause=1))
    assert [crashes.add(now) for now in (0, 1, 2, 3, 12.5)] == [1, 2, 4, None, 2]


def test_sigint_breaks_off_what_sigterm_waits_for(settings: Settings, device: Device, speech: list[Clip]) -> None:
    audio = speech[0].path.read_bytes()

    def visit(managed: ManagedServer) -> None:
        device.hold()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(managed.post, audio)
            assert device.waits.wait(PATIENCE)
            for _ in range(2):
                managed.send(signal.SIGTERM)
                assert managed.server_state.wait_end()
                assert not managed.server_state.wait_drained(0)
            assert code(managed.post(audio)) == (503, "draining")
            managed.send(signal.SIGINT)
            assert code(asked.result()) == (503, "stopping")
        device.goes_on.set()

    assert run_engine_manager(settings, visit, policy=NEVER) == DrainSummary(answered=0, given_up=1)


def test_a_crash_while_the_server_drains(settings: Settings, device: Device, speech: list[Clip]) -> None:
    def visit(managed: ManagedServer) -> None:
        device.hold()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(managed.post, speech[0].path.read_bytes())
            assert device.waits.wait(PATIENCE)
            managed.send(signal.SIGTERM)
            device.fail(Fault("the device is gone"))
            device.goes_on.set()
            assert code(asked.result()) == (503, "engine_failed")
        assert managed.over.wait(PATIENCE)

    run_engine_manager(settings, visit, policy=AT_ONCE)


@on_npu
def test_nothing_of_the_old_model_stays_on_the_npu() -> None:
    import torch

    npu = torch.npu  # type: ignore[attr-defined]
    gc.collect()
    at_first = npu.memory_allocated()  # of what other tests left in this process
    held = []

    def visit(managed: ManagedServer) -> None:
        audio = bundled_clips()[0].path.read_bytes()
        before = npu.memory_allocated()
        held.append(managed.server_state.service.transcriber)
        managed.server_state.engine_failed("for the first time")
        managed.await_ready()
        assert npu.memory_allocated() < 1.5 * before  # one model, and what is left of a warm-up
        assert managed.post(audio).status_code == 200
        managed.server_state.drain()
        cache = httpx.get(f"{managed.url}/admin/cache").json()
        assert cache["device"] == "npu:0"
        assert cache["freed"] > 0
        emptied = httpx.post(f"{managed.url}/admin/cache").json()
        assert (emptied["reserved_before"], emptied["dry_run"]) == (cache["reserved_before"], False)
        assert emptied["reserved_after"] <= cache["reserved_after"] < cache["reserved_before"]
        assert httpx.get(f"{managed.url}/admin/cache").json()["freed"] == 0

    run_engine_manager(load_settings({"ASR_DEVICE": "npu"}), visit, policy=AT_ONCE)
    assert npu.memory_reserved() <= at_first


def test_sigterm_while_an_engine_is_awaited(settings: Settings) -> None:
    def visit(managed: ManagedServer) -> None:
        managed.server_state.engine_failed("for the first time")
        ready, told = managed.health()
        assert (ready, told["status"]) == (503, "restarting")
        managed.send(signal.SIGTERM)
        assert managed.over.wait(PATIENCE)
        assert managed.server_state.restarts == 0

    assert run_engine_manager(settings, visit, policy=NEVER) == DrainSummary()
