"""The server under load: closed and open arrival on a real server, and one that sheds, fails, dies or never was."""

import itertools
import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr
from serving import PATIENCE, SERVE, HeldEngine, Served, decoded, held, lines, served
from tree import bare_environment

from env.sources import PROJECT
from runtime.engines import Decoded
from runtime.measure.bench.record import Absent, Bench, Found, Plan
from runtime.measure.bench.serving import around, arrivals, arriving, closed
from runtime.measure.load_generator import clients
from runtime.measure.statistics import Figure
from runtime.measure.synthetic_audio import recordings
from runtime.server.errors import FullError
from runtime.transcriber import Transcriber

EACH_LEVEL = {"errors", "throughput", "latency", "rtf", "first-token"}


def plan(url: str, **changes: object) -> Bench:
    """A benchmark of a server that runs."""
    return Bench(None, Plan(("closed", "open"), url=url, **changes))  # type: ignore[arg-type]


def figures(found: Sequence[Found]) -> dict[str, Figure]:
    """By their keys."""
    return {one.key: one for one in found if isinstance(one, Figure)}


def absences(found: Sequence[Found]) -> list[Absent]:
    """What is absent."""
    return [one for one in found if isinstance(one, Absent)]


def test_closed_arrival_has_its_figures_at_each_number_of_clients(transcriber: Transcriber) -> None:
    told: list[str] = []
    found = list(closed(Bench(transcriber, Plan(("closed",), clients=(1, 3), requests=4), told.append)))
    assert told == ["closed, clients: 1", "closed, clients: 3"]
    assert absences(found) == []
    got = figures(found)
    assert set(got) == {f"closed/{name}@{count}" for name in EACH_LEVEL for count in (1, 3)}
    for count, requests in ((1, 4), (3, 6)):
        latency, rtf = (got[f"closed/{name}@{count}"].samples for name in ("latency", "rtf"))
        assert len(latency) == len(rtf) == requests
        assert {round(late / factor, 3) for late, factor in zip(latency, rtf, strict=True)} == {1, 7.333, 13.667, 20}
        first = got[f"closed/first-token@{count}"].spread
        assert first.count
        assert requests / 2 <= first.count <= requests
        assert first.maximum
        assert 0 < first.maximum <= max(latency)
        assert got[f"closed/errors@{count}"].samples == (0,)
        assert got[f"closed/errors@{count}"].warmups == count


def test_open_arrival_has_its_figures_at_each_rate(server: Served) -> None:
    found = list(arriving(plan(server.url, rates=(5.0, 50.0), requests=4)))
    assert absences(found) == []
    got = figures(found)
    assert set(got) == {f"open/{name}@{rate}" for name in EACH_LEVEL for rate in (5, 50)}
    assert got["open/latency@50"].spread.count == 4


def test_without_rates_they_are_around_what_the_server_can_answer(server: Served) -> None:
    (first, *_) = [one for one in arriving(plan(server.url, requests=1)) if isinstance(one, Figure)]
    assert first.at in {rate for power in range(-20, 40) for rate in around(10 ** (power / 10))}
    assert around(9.3) == around(11) == [5.0, 7.9, 10.0, 13.0]
    assert around(0.037) == [0.02, 0.032, 0.04, 0.05]


def test_what_was_found_adds_up(server: Served) -> None:
    sounds = recordings([1, 2, 3])
    with clients(server.url, sounds) as crowd:
        level = crowd.closed(2, 7)
    assert (len(level.answered), level.failures, level.lost) == (7, {}, "")
    assert sorted(outcome.audio_seconds for outcome in level.outcomes) == [1, 1, 1, 2, 2, 3, 3]
    assert level.throughput * level.elapsed == pytest.approx(13)
    assert level.rate * level.elapsed == pytest.approx(7)
    assert max(outcome.latency for outcome in level.outcomes) <= level.elapsed
    assert sum(outcome.latency for outcome in level.outcomes) <= 2 * level.elapsed


def test_arrivals_are_the_same_each_time_and_as_many_per_second_as_asked_for() -> None:
    times = arrivals(4, 2000)
    assert times == arrivals(4, 2000) == sorted(times)
    assert 2000 / times[-1] == pytest.approx(4, rel=0.1)
    assert arrivals(8, 3) == pytest.approx([time / 2 for time in times[:3]])
    gaps = [late - early for early, late in itertools.pairwise(times)]
    assert sum(gap > 0.25 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.05)  # exp(-1): without memory


@pytest.fixture
def still(transcriber: Transcriber) -> Iterator[tuple[Served, HeldEngine]]:
    """A server whose engine is held still."""
    silent, engine = held(transcriber)
    with served(silent) as server:
        yield server, engine


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A thread for what goes on beside the load."""
    with ThreadPoolExecutor(1) as threads:
        yield threads


def answer(engine: HeldEngine, *results: Decoded | Exception) -> None:
    """End so many utterances, in the order in which they come."""
    for result in results:
        engine.next().tell(result)


def test_open_arrival_does_not_wait_for_answers(still: tuple[Served, HeldEngine], pool: ThreadPoolExecutor) -> None:
    server, engine = still
    times = [0.0, 0.05, 0.1, *[0.15] * 17]

    def late() -> None:
        for decoding in [engine.next() for _ in times]:  # nothing is answered before all have asked
            decoding.tell(decoded("late"))

    with clients(server.url, recordings([1])) as crowd:
        answering = pool.submit(late)
        level = crowd.arriving(times)
    answering.result()
    assert len(level.answered) == len(times)
    begun = level.outcomes[0].due
    assert [outcome.due - begun for outcome in level.outcomes] == pytest.approx(times)
    assert all(outcome.first_token for outcome in level.outcomes)


def test_shed_requests_are_counted(
    transcriber: Transcriber, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, engine = held(transcriber)
    shed = threading.Semaphore(0)
    with served(silent, max_waiting=1) as server:
        look = server.service.check_capacity

        def check_capacity() -> None:
            try:
                look()
            except FullError:
                shed.release()
                raise

        monkeypatch.setattr(server.service, "check_capacity", check_capacity)

        def late() -> None:
            decoding = engine.next()
            assert all(shed.acquire(timeout=PATIENCE) for _ in range(2))
            decoding.tell(decoded("at last"))

        with clients(server.url, recordings([1])) as crowd:
            answering = pool.submit(late)
            level = crowd.closed(3, 3)
        answering.result()
    assert (len(level.answered), level.failures, level.lost) == (1, {"429 queue_full": 2}, "")


def test_what_is_shed_stands_beside_the_figures_of_the_rest(transcriber: Transcriber) -> None:
    with served(transcriber, max_waiting=1) as server:
        found = list(closed(plan(server.url, clients=(4,), requests=8)))
    (absent,) = absences(found)
    got = figures(found)
    (errors,) = got["closed/errors@4"].samples
    assert absent.what == "closed@4"
    assert absent.reason == f"{errors:g} of 8 requests failed: {errors:g} times 429 queue_full"
    assert "ASR_MAX_WAITING" in absent.advice
    assert got["closed/latency@4"].spread.count == 8 - errors


def test_a_failure_in_the_stream_and_no_text_at_all_are_said(
    still: tuple[Served, HeldEngine], pool: ThreadPoolExecutor
) -> None:
    server, engine = still
    answering = pool.submit(answer, engine, decoded("warm"), ValueError("what a surprise"), decoded(""))
    found = list(closed(plan(server.url, clients=(1,), requests=1)))
    answering.result()
    assert [(absent.what, absent.reason) for absent in absences(found)] == [
        ("closed@1", "1 of 2 requests failed: 1 times decoding_failed"),
        ("closed@1", "no first token, as no transcript had any text"),
    ]
    assert figures(found)["closed/latency@1"].spread.count == 1


def test_a_key_that_is_missing_is_said_at_once(transcriber: Transcriber) -> None:
    with served(transcriber, api_key=SecretStr("secret")) as server:
        (absent,) = closed(plan(server.url, clients=(1, 2)))
    assert isinstance(absent, Absent)
    assert (absent.what, absent.reason) == (
        "closed",
        "the server: 1 of 1 requests failed: 1 times 401 invalid_api_key",
    )
    assert "OPENAI_API_KEY" in absent.advice


@pytest.mark.parametrize("measure", [closed, arriving])
def test_a_server_that_is_not_there_leaves_the_part_absent(measure: Callable[[Bench], Iterator[Found]]) -> None:
    (absent,) = measure(plan("http://127.0.0.1:9"))
    assert isinstance(absent, Absent)
    assert absent.what in ("closed", "open")
    assert "http://127.0.0.1:9: cannot be reached: Connection refused" in absent.reason
    assert "invoke start" in absent.advice


def test_a_server_that_is_not_ready_leaves_the_part_absent(server: Served) -> None:
    server.server_state.drain()
    try:
        (absent,) = closed(plan(server.url))
    finally:
        server.server_state.resume()
    assert isinstance(absent, Absent)
    assert "is not ready" in absent.reason
    assert "draining" in absent.reason
    assert absent.advice


def test_a_server_that_is_killed_leaves_what_was_found_and_the_rest_absent(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    environment = bare_environment(ASR_PROFILE="cpu", ASR_DEVICE="cpu", ASR_OUT_DIR=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        told = lines(process)

        def kill() -> None:
            answered = 0
            while answered < 6:  # two to warm up
                answered += "POST" in next(told)
            process.kill()

        try:
            port = next(int(line.split()[1]) for line in told if line.startswith("PORT"))
            killing = pool.submit(kill)
            found = list(closed(plan(f"http://127.0.0.1:{port}", clients=(2, 4, 8))))
            killing.result()
        finally:
            process.kill()
    got = figures(found)
    assert set(got) == {f"closed/{name}@2" for name in EACH_LEVEL}
    assert got["closed/errors@2"].samples[0] in (1, 2)
    assert got["closed/latency@2"].spread.count
    here, *rest = absences(found)
    assert here.what == "closed@2"
    assert "requests failed" in here.reason
    assert [absent.what for absent in rest] == ["closed@4", "closed@8"]
    for absent in rest:
        assert "was not ready any more: cannot be reached" in absent.reason
        assert absent.advice


def test_ctrl_c_ends_it_and_leaves_no_process(still: tuple[Served, HeldEngine], pool: ThreadPoolExecutor) -> None:
    server, engine = still
    here, before = threading.main_thread().ident, set(multiprocessing.active_children())
    assert here

    def interrupt() -> threading.Event:
        decoding = engine.next()
        signal.pthread_kill(here, signal.SIGINT)
        return decoding.cancelled

    interrupting = pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(closed(plan(server.url, clients=(1,))))
    assert set(multiprocessing.active_children()) <= before
    assert interrupting.result().wait(PATIENCE)  # the server has seen that nobody waits


def test_clients_that_end_unasked_leave_the_part_absent(
    still: tuple[Served, HeldEngine], pool: ThreadPoolExecutor
) -> None:
    server, engine = still
    before = set(multiprocessing.active_children())

    def kill() -> None:
        engine.next()
        (process,) = set(multiprocessing.active_children()) - before
        process.kill()

    killing = pool.submit(kill)
    (absent,) = closed(plan(server.url, clients=(1,)))
    killing.result()
    assert isinstance(absent, Absent)
    assert (absent.what, absent.reason) == ("closed", "the process of the clients: ended before it was asked to")
