"""`invoke soak`: a real server is asked for a few seconds; what hours would show is judged from made-up figures."""

import signal
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import requests
from invoke import Context, Exit
from serving import Served, held, served

from env.errors import KitError
from runtime import audio
from runtime.audio import Limits
from runtime.measure import soak
from runtime.measure.smoke import record
from runtime.measure.soak import FORMATS, KINDS, SECONDS, RequestTally, SoakConnection, SoakReport, drawn, recordings
from runtime.tasks import measure as tasks
from runtime.transcriber import Transcriber

HOUR = 3600.0


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[Served]:
    """A server around the demo model."""
    with served(transcriber) as running:
        yield running


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """What is asked."""
    return recordings()


def test_recordings_have_the_lengths_and_formats(files: list[bytes]) -> None:
    heard = [round(audio.load(file, limits=Limits()).seconds, 1) for file in files]
    assert heard == [pytest.approx(seconds, abs=0.1) for _ in FORMATS for seconds in SECONDS]


def test_every_kind_is_asked_and_answered(server: Served, files: list[bytes]) -> None:
    seen: list[float] = []
    short = [file for file in files if audio.load(file, limits=Limits()).seconds < 3]
    report = soak.soak(server.url, short, seconds=4, clients=4, on_time=seen.append)
    assert report.failures == Counter()
    assert report.faults == []
    assert report.asked == sum(len(tally.taken) for tally in report.tallies.values())
    assert {kind for kind, tally in report.tallies.items() if tally.taken} >= {"whole", "streamed"}
    assert sum(seen) == pytest.approx(4, abs=1)
    assert report.memory[-1][1] > 100 << 20
    assert report.slope is not None


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_request_is_right_about_the_server(server: Served, files: list[bytes], kind: str) -> None:
    with requests.Session() as session:
        KINDS[kind][0](SoakConnection(server.url, session), files[0])


def test_kinds_come_as_often_as_they_should() -> None:
    chance = Random(1)
    drawings = Counter(drawn(chance) for _ in range(1000))
    assert set(drawings) == set(KINDS)
    assert drawings.most_common()[0][0] == "whole"
    assert drawings["broken"] < drawings["streamed"]


def test_wrong_answers_are_counted_by_their_words(transcriber: Transcriber, files: list[bytes]) -> None:
    with served(transcriber, max_audio_seconds=1.5) as server:
        report = soak.soak(server.url, [files[1]], seconds=1, clients=2)
    assert report.failures["whole: 400 instead of 200 (invalid_audio)"]
    assert any("requests failed" in fault for fault in report.faults)


def test_what_a_server_that_ends_says_is_counted(transcriber: Transcriber, files: list[bytes]) -> None:
    silent, engine = held(transcriber)
    with served(silent) as server:

        def stop() -> None:
            engine.next()
            server.http_server.call(server.service.cancel_all)

        stopping = threading.Thread(target=stop)
        stopping.start()
        report = soak.soak(server.url, [files[1]], seconds=0.1, clients=1)
        stopping.join()
    assert any("(stopping)" in words for words in report.failures)


def test_no_server_is_said() -> None:
    with pytest.raises(KitError, match=r"127\.0\.0\.1:9.*cannot be reached.*invoke start"):
        soak.soak("http://127.0.0.1:9", [b""], seconds=1, clients=1)


def test_a_server_that_is_not_ready_is_said(server: Served) -> None:
    server.server_state.drain()
    try:
        with pytest.raises(KitError, match=r"is not ready: .*draining"):
            soak.soak(server.url, [b""], seconds=1, clients=1)
    finally:
        server.server_state.resume()


def tally(latencies: list[float], seconds: float) -> RequestTally:
    """Requests spread evenly over so much time."""
    begun = array("f", [number * seconds / len(latencies) for number in range(len(latencies))])
    return RequestTally(begun, array("f", latencies))


def memory(first: float, last: float, seconds: float) -> list[tuple[float, float]]:
    """Bytes that grow evenly."""
    return [(seconds * step / 100, first + (last - first) * step / 100) for step in range(101)]


def test_drift_and_growth_are_judged_after_a_while() -> None:
    slower, bigger = tally([0.1] * 200 + [0.3] * 100, HOUR), memory(1 << 30, 2 << 30, HOUR)
    report = SoakReport(HOUR, {"whole": slower}, bigger)
    assert report.drift == pytest.approx(3)
    assert report.slope == pytest.approx(1024)
    assert [fault.split()[0] for fault in report.faults] == ["answers", "memory"]
    assert SoakReport(60, {"whole": tally([0.1] * 200 + [0.3] * 100, 60)}, memory(1 << 30, 2 << 30, 60)).faults == []
    steady = SoakReport(HOUR, {"whole": tally([0.1] * 300, HOUR)}, memory(1 << 30, 1 << 30, HOUR))
    assert steady.faults == []
    assert steady.drift == pytest.approx(1)


def test_memory_that_comes_back_is_no_growth() -> None:
    swinging = [(at, size + (number % 2) * number * (16 << 20)) for number, (at, size) in enumerate(memory(1, 1, HOUR))]
    steady = SoakReport(HOUR, {"whole": tally([0.1] * 300, HOUR)}, swinging)
    assert max(size for _, size in swinging) > 1 << 30
    assert steady.slope == pytest.approx(0)
    assert steady.faults == []


def test_too_little_is_not_judged() -> None:
    few = SoakReport(HOUR, {"whole": tally([0.1] * 9, HOUR)}, [])
    assert (few.drift, few.slope, few.faults) == (None, None, [])
    assert SoakReport(1.0, {kind: RequestTally() for kind in KINDS}, []).faults == ["nothing was asked"]
    assert "too few" in " ".join(part for part in record.soaked(few) if isinstance(part, str))


def test_ctrl_c_ends_it_with_what_was_found(server: Served, files: list[bytes]) -> None:
    def interrupt(_: float) -> None:
        signal.raise_signal(signal.SIGINT)

    report = soak.soak(server.url, [files[1]], seconds=HOUR, clients=2, on_time=interrupt)
    assert report.asked
    assert report.faults == []


def test_the_task_tells_what_it_found(
    server: Served, capsys: pytest.CaptureFixture[str], transcriber: Transcriber
) -> None:
    tasks.soak(Context(), minutes=0.03, clients=2, url=server.url)
    told = capsys.readouterr().out
    assert "requests in 2 s" in told
    assert "MiB an hour" in told or "too few looks" in told
    with served(transcriber, max_audio_seconds=0.5) as refusing, pytest.raises(Exit, match="requests failed") as ended:
        tasks.soak(Context(), minutes=0.02, clients=1, url=refusing.url)
    assert ended.value.code == 1
    assert "400 instead of 200 (invalid_audio)" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"minutes": 0.0}, {"clients": 0}])
def test_nothing_to_do_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exit, match=f"--{next(iter(wrong))}: expected more than 0"):
        tasks.soak(Context(), **wrong)
