"""An engine that fails: everybody is told, the server loads another one, or ends if that is of no use."""

import gc
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from keeping import Device, Kept, keep
from serving import PATIENCE, TRANSCRIPTIONS
from simulated_npu import on_npu

from env.settings import Settings
from env.sources import load_settings
from runtime.demo import Clip, bundled_clips
from runtime.ops.process.state import DrainSummary
from runtime.ops.process.supervisor import REFUSALS
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

    def visit(kept: Kept) -> None:
        first = kept.life.service
        device.hold()
        with ThreadPoolExecutor(6) as pool, httpx.Client(timeout=PATIENCE) as client:
            asked = [pool.submit(kept.post, audio) for _ in range(6)]  # more than are read ahead
            assert device.waits.wait(PATIENCE)
            device.fail(Fault("the device is gone"), times=1, then_hold=True)
            device.goes_on.set()
            for future in asked:
                answer = future.result()
                assert code(answer) == (503, "engine_failed")
                assert int(answer.headers["Retry-After"]) > 0
                assert "the device is gone" in answer.json()["error"]["message"]
            device.goes_on.set()
            kept.await_ready()
            assert client.post(kept.url + TRANSCRIPTIONS, files={"file": audio}).json()["text"] == speech[0].text
        assert kept.health()[0] == 200
        assert kept.life.restarts == 1
        assert kept.life.service is not first

    assert keep(settings, visit, policy=AT_ONCE) == DrainSummary()


def test_while_it_is_mended_the_cause_is_told(
    settings: Settings, device: Device, speech: list[Clip], caplog: pytest.LogCaptureFixture
) -> None:
    audio = speech[0].path.read_bytes()

    def visit(kept: Kept) -> None:
        device.fail(Fault("the device is gone"), times=1)
        assert code(kept.post(audio)) == (503, "engine_failed")
        ready, told = kept.health()
        assert (ready, told["status"]) == (503, "restarting")
        assert "the engine has failed: Fault: the device is gone" in told["stage"]
        assert code(kept.post(audio)) == (503, "engine_failed")
        status = httpx.get(f"{kept.url}/admin/status").json()
        assert (status["status"], status["device"]) == ("restarting", None)
        assert httpx.get(f"{kept.url}/health/live").status_code == 200
        kept.send(signal.SIGTERM)

    keep(settings, visit, policy=NEVER)
    assert "restarting in 3600 s: the engine has failed: Fault: the device is gone" in caplog.text


def test_what_is_loading_again_says_so_too(settings: Settings, device: Device, speech: list[Clip]) -> None:
    def visit(kept: Kept) -> None:
        device.fail(Fault("the device is gone"), times=1)
        kept.life.crashed("for the first time")
        device.hold()
        assert device.waits.wait(PATIENCE)  # in the warm-up
        ready, told = kept.health()
        assert (ready, told["status"]) == (503, "restarting")
        assert told["stage"] == "warming up again: the engine has failed: for the first time"
        device.goes_on.set()  # upon which loading fails
        kept.await_ready()
        assert kept.life.restarts == 2
        assert kept.post(speech[0].path.read_bytes()).json()["text"] == speech[0].text

    keep(settings, visit, policy=AT_ONCE)


def test_a_device_that_is_lost_is_found_out(settings: Settings, device: Device, speech: list[Clip]) -> None:
    def visit(kept: Kept) -> None:
        device.fail(LOST)
        assert code(kept.post(speech[0].path.read_bytes())) == (500, "decoding_failed")
        kept.life.await_end()
        assert "507015" in kept.life.crash
        assert kept.health()[1]["status"] == "restarting"
        kept.send(signal.SIGTERM)

    keep(settings, visit, policy=NEVER)


def test_a_bad_utterance_is_no_crash(settings: Settings, device: Device, speech: list[Clip]) -> None:
    audio = speech[0].path.read_bytes()

    def visit(kept: Kept) -> None:
        device.fail(ValueError("what a surprise"), times=1)
        assert code(kept.post(audio)) == (500, "decoding_failed")
        assert kept.post(audio).json()["text"] == speech[0].text
        assert kept.health()[0] == 200
        kept.send(signal.SIGTERM)

    assert keep(settings, visit, policy=NEVER) == DrainSummary()


def test_what_cannot_be_mended_ends_the_process(settings: Settings, device: Device) -> None:
    def visit(kept: Kept) -> None:
        device.fail(LOST)
        kept.life.crashed("for the first time")
        assert kept.over.wait(PATIENCE)

    with pytest.raises(EngineLostError, match=r"loaded again once.*507015") as lost:
        keep(settings, visit, policy=Policy(restarts=1, pause=0.0))
    assert lost.value.exit_code == 70
    assert lost.value.exit_code not in REFUSALS


def test_pauses_double_within_the_window() -> None:
    crashes = Crashes(Policy(restarts=3, window=10, pause=1))
    assert [crashes.add(now) for now in (0, 1, 2, 3, 12.5)] == [1, 2, 4, None, 2]


def test_sigint_breaks_off_what_sigterm_waits_for(settings: Settings, device: Device, speech: list[Clip]) -> None:
    audio = speech[0].path.read_bytes()

    def visit(kept: Kept) -> None:
        device.hold()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(kept.post, audio)
            assert device.waits.wait(PATIENCE)
            for _ in range(2):
                kept.send(signal.SIGTERM)
                assert kept.life.await_end()
                assert not kept.life.await_drained(0)
            assert code(kept.post(audio)) == (503, "draining")
            kept.send(signal.SIGINT)
            assert code(asked.result()) == (503, "stopping")
        device.goes_on.set()

    assert keep(settings, visit, policy=NEVER) == DrainSummary(answered=0, given_up=1)


def test_a_crash_while_the_server_drains(settings: Settings, device: Device, speech: list[Clip]) -> None:
    def visit(kept: Kept) -> None:
        device.hold()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(kept.post, speech[0].path.read_bytes())
            assert device.waits.wait(PATIENCE)
            kept.send(signal.SIGTERM)
            device.fail(Fault("the device is gone"))
            device.goes_on.set()
            assert code(asked.result()) == (503, "engine_failed")
        assert kept.over.wait(PATIENCE)

    keep(settings, visit, policy=AT_ONCE)


@on_npu
def test_nothing_of_the_old_model_stays_on_the_npu() -> None:
    import torch

    npu = torch.npu  # type: ignore[attr-defined]
    gc.collect()
    at_first = npu.memory_allocated()  # of what other tests left in this process
    held = []

    def visit(kept: Kept) -> None:
        audio = bundled_clips()[0].path.read_bytes()
        before = npu.memory_allocated()
        held.append(kept.life.service.transcriber)
        kept.life.crashed("for the first time")
        kept.await_ready()
        assert npu.memory_allocated() < 1.5 * before  # one model, and what is left of a warm-up
        assert kept.post(audio).status_code == 200
        kept.life.drain()
        cache = httpx.get(f"{kept.url}/admin/cache").json()
        assert cache["device"] == "npu:0"
        assert cache["freed"] > 0
        emptied = httpx.post(f"{kept.url}/admin/cache").json()
        assert (emptied["reserved_before"], emptied["dry_run"]) == (cache["reserved_before"], False)
        assert emptied["reserved_after"] <= cache["reserved_after"] < cache["reserved_before"]
        assert httpx.get(f"{kept.url}/admin/cache").json()["freed"] == 0

    keep(load_settings({"ASR_DEVICE": "npu"}), visit, policy=AT_ONCE)
    assert npu.memory_reserved() <= at_first


def test_sigterm_while_an_engine_is_awaited(settings: Settings) -> None:
    def visit(kept: Kept) -> None:
        kept.life.crashed("for the first time")
        ready, told = kept.health()
        assert (ready, told["status"]) == (503, "restarting")
        kept.send(signal.SIGTERM)
        assert kept.over.wait(PATIENCE)
        assert kept.life.restarts == 0

    assert keep(settings, visit, policy=NEVER) == DrainSummary()
