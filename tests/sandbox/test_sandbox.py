"""What reads bytes from outside has limits, and breaks alone."""

import io
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import psutil
import pytest
from attacks import forged_table, helpers, many_tracks, voids
from audio_files import ffmpeg
from fronting import until

from runtime import sandbox
from runtime.audio import AudioError, Limits, UnreadableError, load
from runtime.demo import Clip
from runtime.sandbox import Cancellation, CancelledError, ExceededError, HelperLimits
from runtime.sandbox.pool import KEPT, PROJECT, SLOW_PLACES

LIMITS = Limits()
ARGUMENTS = {"name": "audio", "longest_seconds": 14_400.0, "shortest_seconds": 0.1, "cpu_per_second": 0.05}
WIDE = HelperLimits(memory=1 << 30, output=1 << 32, cpu_seconds=300, seconds=600)
GROWTH = 32 << 10  # KiB


@pytest.fixture(scope="module")
def slow_file() -> bytes:
    """It takes seconds to read: 2 hours of sound in AAC, 1 MB."""
    quarter = ffmpeg(np.zeros((900 * 8000, 1), np.float32), 8000, container="adts", codec="aac")
    return quarter * 8


def refusal(file: bytes) -> str:
    with pytest.raises(AudioError) as caught:
        load(file, limits=LIMITS)
    return caught.value.reason


def decode(file: bytes, *, bounds: HelperLimits = WIDE, cancellation: Cancellation | None = None) -> dict[str, int]:
    """What a helper gives for a file, within bounds of the test's own."""
    with TemporaryFile() as into:
        task = "runtime.audio.decode:decode"
        found: dict[str, int] = sandbox.call(
            task, io.BytesIO(file), into.fileno(), ARGUMENTS, bounds=bounds, cancellation=cancellation
        )
        return found


def at_work() -> psutil.Process:
    """The one helper that works."""
    working = [one for one in helpers() if one.nice() > 0]
    assert len(working) == 1
    return working[0]


@pytest.fixture
def working(slow_file: bytes) -> Iterator[tuple[psutil.Process, "Future[Any]"]]:
    """A helper that reads the slow file, and what will come of it."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(load, slow_file, limits=LIMITS)
        until(lambda: any(one.nice() > 0 for one in helpers()))
        yield at_work(), future


def test_tables_that_ask_for_gigabytes_get_none_of_it() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadPoolExecutor(4) as pool:
        reasons = [*pool.map(refusal, [forged_table()] * 4), *pool.map(refusal, [many_tracks()] * 2)]
    assert reasons == ["lasts 0.000 s, the minimum is 0.1 s"] * 4 + ["takes more than 353 MiB of memory to read"] * 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH
    assert all(one.memory_info().rss >> 10 < GROWTH + 60_000 for one in helpers())


def test_what_takes_too_much_cpu_time_is_ended(slow_file: bytes, speech: list[Clip]) -> None:
    scarce = HelperLimits(memory=1 << 30, output=1 << 32, cpu_seconds=1, seconds=600)
    with pytest.raises(ExceededError, match=r"^takes more than 1 s of CPU time to read$"):
        decode(voids(), bounds=scarce)
    assert decode(slow_file, bounds=scarce)["samples"] > 7200 * 16_000  # sound earns the time that it takes
    assert load(speech[0].path, limits=LIMITS).seconds > 1


def test_what_takes_too_long_is_ended(slow_file: bytes) -> None:
    hasty = HelperLimits(memory=1 << 30, output=1 << 32, cpu_seconds=300, seconds=0.1)
    with pytest.raises(ExceededError, match=r"^takes longer to read than 0\.1 s$"):
        decode(slow_file, bounds=hasty)


def test_a_helper_can_open_nothing_and_knows_no_secret(working: tuple[psutil.Process, "Future[Any]"]) -> None:
    helper, future = working
    held = {int(place.name): place.readlink().name for place in Path(f"/proc/{helper.pid}/fd").iterdir()}
    assert {number: held.pop(number) for number in (0, 1, 2)} == dict.fromkeys((0, 1, 2), "null")
    assert {number: name.partition(":")[0] for number, name in held.items()} == {
        3: "socket",
        4: "statm",
        5: "memfd",
        6: "memfd",
    }
    assert helper.rlimit(psutil.RLIMIT_NOFILE) == (7, 7)
    assert helper.rlimit(psutil.RLIMIT_AS)[0] < 1 << 30
    assert helper.environ().keys() <= {*KEPT, "OPENBLAS_NUM_THREADS"}
    assert future.result().seconds > 7200


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_helper_that_crashes_fails_its_file_alone(
    number: signal.Signals, working: tuple[psutil.Process, "Future[Any]"], speech: list[Clip]
) -> None:
    helper, future = working
    helper.send_signal(number)
    expected = {
        signal.SIGSEGV: r"makes what reads it crash \(SIGSEGV\)",
        signal.SIGKILL: "takes more memory to read than this machine has left",
    }
    with pytest.raises(AudioError, match=expected[number]):
        future.result()
    assert load(speech[0].path, limits=LIMITS).seconds > 1


def test_the_template_is_started_again_and_nobody_is_told(
    working: tuple[psutil.Process, "Future[Any]"], speech: list[Clip]
) -> None:
    helper, future = working
    template = helper.parent()
    assert template
    template.terminate()  # as service managers do to all processes
    assert load(speech[0].path, limits=LIMITS).seconds > 1
    assert helper.is_running()
    template.kill()
    assert future.result().seconds > 7200
    assert template.pid not in [one.ppid() for one in helpers()]


def test_what_the_system_lacks_is_no_fault_of_the_file(speech: list[Clip]) -> None:
    for helper in helpers():
        helper.kill()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with speech[0].path.open("rb") as file:
        last = file.fileno()  # the lowest that was free
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    try:
        with speech[0].path.open("rb") as file, pytest.raises(UnreadableError, match="Too many open files"):
            load(file, limits=LIMITS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert load(speech[0].path, limits=LIMITS).seconds > 1


def test_helpers_work_under_limits_of_somebody_elses(speech: list[Clip]) -> None:
    program = "import sys; from runtime.audio import *; print(load(sys.argv[1], limits=Limits()).seconds)"
    limited = f'ulimit -f 1000000 -v 8000000 -t 600; exec "{sys.executable}" -c "{program}" "{speech[0].path}"'
    done = subprocess.run(["bash", "-c", limited], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert float(done.stdout) > 1, done.stderr


def test_who_has_worked_long_gives_way_to_nobody_later(slow_file: bytes, speech: list[Clip]) -> None:
    decode(slow_file)
    load(speech[0].path, limits=LIMITS)
    assert {one.nice() for one in helpers()} == {psutil.Process().nice()}


def test_a_call_can_be_cancelled(slow_file: bytes) -> None:
    cancellation = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(decode, slow_file, cancellation=cancellation)
        until(lambda: any(one.nice() > 0 for one in helpers()))
        helper = at_work()
        cancellation.cancel()
        with pytest.raises(CancelledError):
            future.result()
    assert not helper.is_running()
    with pytest.raises(CancelledError):
        decode(slow_file, cancellation=cancellation)


def test_a_call_can_be_cancelled_while_the_template_dies(slow_file: bytes) -> None:
    cancellation = Cancellation()
    with ThreadPoolExecutor(2) as pool:
        future = pool.submit(decode, slow_file, cancellation=cancellation)
        until(lambda: any(one.nice() > 0 for one in helpers()))
        template = at_work().parent()
        assert template
        template.suspend()
        cancelling = pool.submit(cancellation.cancel)  # which asks the template to end the helper
        until(lambda: cancellation.cancelled)
        template.kill()
        assert cancelling.exception() is None
        with pytest.raises(CancelledError):
            future.result()


def test_slow_files_leave_room_for_quick_ones(slow_file: bytes, speech: list[Clip]) -> None:
    cancellations = [Cancellation() for _ in range(3 * SLOW_PLACES)]
    with ThreadPoolExecutor(len(cancellations)) as pool:
        futures = [pool.submit(decode, slow_file, cancellation=one) for one in cancellations]
        until(lambda: sum(one.nice() > 0 for one in helpers()) == SLOW_PLACES)
        assert load(speech[0].path, limits=LIMITS).seconds > 1
        assert sum(one.nice() > 0 for one in helpers()) <= SLOW_PLACES
        for cancellation in cancellations:
            cancellation.cancel()
        assert all(isinstance(future.exception(), CancelledError) for future in futures)


def test_helpers_end_with_the_process_that_asked_for_them(slow_file: bytes) -> None:
    program = "import sys; from runtime.audio import *; load(sys.stdin.buffer.read(), limits=Limits())"
    with subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT, stdin=subprocess.PIPE) as process:
        assert process.stdin
        feeding = threading.Thread(target=process.communicate, args=(slow_file,))
        feeding.start()
        family = psutil.Process(process.pid)
        until(lambda: any(one.nice() > 0 for one in family.children(recursive=True)))
        descendants = family.children(recursive=True)
        process.kill()
        feeding.join()
    assert len(descendants) == 2
    _, alive = psutil.wait_procs(descendants, timeout=60)
    assert not alive
