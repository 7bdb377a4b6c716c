"""The kit beside qwen-asr: by turns, on the same recordings, and what becomes of an arm that cannot go on."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import first_validation
import host_cost
import psutil
import pytest
from first_validation import FIRST_VALIDATION, without_kit

from env.errors import KitError
from env.sources import PROJECT, load_settings
from runtime.measure.bench import comparison, worker
from runtime.measure.bench.baselines import KIT, QWEN_ASR
from runtime.measure.bench.record import Absent, Bench, Found, Plan
from runtime.measure.bench.worker import WorkerProcess, environment, order, started
from runtime.measure.statistics import Figure
from runtime.transcriber import Transcriber

SHORT = 13.0  # seconds, in place of five minutes: the kit makes two segments of it
WITHIN_A_WINDOW = (1.0, 2.0, 3.0, 4.2, 5.0, 6.0, 7.0, 8.0)  # seconds: what is longer, qwen-asr encodes otherwise
CASES = ("alone", "batch", "long")


def children() -> list[int]:
    """The processes of this one that transcribe as they are told."""
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child.pid for child in alive if worker.PROGRAM in child.cmdline()]


def of(found: list[Found], quantity: str) -> Figure:
    """The figure of that quantity."""
    (figure,) = [one for one in found if isinstance(one, Figure) and one.quantity == f"engines/{quantity}"]
    return figure


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the run below told."""
    return []


@pytest.fixture(scope="module")
def found(transcriber: Transcriber, told: list[str]) -> Iterator[list[Found]]:
    """A whole run with few rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "LONG", SHORT)
        patch.setattr(comparison, "BATCH", WITHIN_A_WINDOW)
        yield list(comparison.measure_versus(Bench(transcriber, Plan(("engines",), runs=4, warmups=1), told.append)))


def test_each_round_has_a_ratio(found: list[Found], told: list[str]) -> None:
    for case, rounds in zip(CASES, (4, 2, 1), strict=True):
        ours, theirs, ratio = (of(found, f"{case}/{name}") for name in (KIT, QWEN_ASR, f"{QWEN_ASR}-ratio"))
        assert len(ours.samples) == len(theirs.samples) == rounds
        assert min(ours.samples) > 0
        assert ratio.samples == tuple(them / us for them, us in zip(theirs.samples, ours.samples, strict=True))
        assert f"engines: {case}, round {rounds + 1} of {rounds + 1}" in told
        assert {one.warmups for one in (ours, theirs, ratio)} == {1}


def test_both_decode_the_same_tokens(found: list[Found]) -> None:
    for case in ("alone", "batch"):  # the kit cuts what is long
        ours, theirs = (of(found, f"{case}/{name}-tokens").samples for name in (KIT, QWEN_ASR))
        assert ours == theirs
        assert min(ours) > 5


def test_the_first_validation_is_measured_where_it_can_read_files(transcriber: Transcriber, told: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "LONG", SHORT)
        patch.setattr(comparison, "BATCH", WITHIN_A_WINDOW)
        found = list(first_validation.measure(Bench(transcriber, Plan(("engines",), runs=1, warmups=0), told.append)))
    absent = [one for one in found if isinstance(one, Absent)]
    for case in CASES:
        assert of(found, f"{case}/{QWEN_ASR}").spread.count
    if first_validation.reads_files():
        assert not absent
        for case in CASES:
            assert of(found, f"{case}/{FIRST_VALIDATION}").spread.count
            assert of(found, f"{case}/{FIRST_VALIDATION}-tokens").spread.middle > 5
    else:
        (one,) = absent
        assert one.what == f"engines@{FIRST_VALIDATION}"
        assert "make .reference/installed" in one.advice


def test_its_children_have_ended(found: list[Found]) -> None:
    assert found
    assert not children()


def test_where_memory_is_short_or_librosa_absent_nothing_is_loaded(
    transcriber: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 9 kB\nMemAvailable: 2 kB\n", encoding="ascii")
    monkeypatch.setattr(worker, "MEMORY", memory)
    monkeypatch.setattr(first_validation, "REFERENCE", tmp_path)
    absent = list(first_validation.measure(Bench(transcriber, Plan(("engines",)))))
    reasons = {one.what: f"{one.reason} {one.advice}" for one in absent if isinstance(one, Absent)}
    assert "the host has 0.0 GiB available" in reasons[f"engines@{QWEN_ASR}"]
    assert "make .reference/installed" in reasons[f"engines@{FIRST_VALIDATION}"]
    assert len(absent) == 2
    (alone,) = comparison.measure_versus(Bench(transcriber, Plan(("engines",))))
    assert alone in absent


def after(words: str, act: Callable[[], None]) -> Callable[[str], None]:
    """A listener that acts when it hears these words."""
    return lambda told: act() if told == words else None


@pytest.fixture(scope="module")
def lone(transcriber: Transcriber) -> Iterator[WorkerProcess]:
    """The kit's engine in a process of its own."""
    with started(order(KIT, transcriber), environment()) as other:
        yield other


def test_an_arm_that_is_killed_is_absent_and_the_others_go_on(transcriber: Transcriber, lone: WorkerProcess) -> None:
    def kill() -> None:
        (one,) = children()
        os.kill(one, signal.SIGKILL)

    bench = Bench(transcriber, Plan(("engines",), runs=3, warmups=0), after("engines: alone, round 2 of 3", kill))
    found = list(comparison.compare(bench, next(comparison.cases(bench)), {QWEN_ASR: lone}))
    (absent,) = [one for one in found if isinstance(one, Absent)]
    assert absent.what == f"engines@alone/{QWEN_ASR}"
    assert "SIGKILL" in absent.reason
    assert len(of(found, "alone/kit").samples) == 3
    assert not any(isinstance(one, Figure) and QWEN_ASR in one.quantity for one in found)


def test_a_child_says_why_it_ends(transcriber: Transcriber) -> None:
    wanted = order(KIT, transcriber, device="npu:7")
    with pytest.raises(KitError, match="kit: npu:7: torch_npu"), started(wanted, environment()):
        pass


def test_an_interrupted_run_leaves_no_child(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        assert children()
        raise KeyboardInterrupt

    monkeypatch.setattr(worker.WorkerProcess, "answer", interrupt)
    before = children()
    with pytest.raises(KeyboardInterrupt):
        list(comparison.measure_versus(Bench(transcriber, Plan(("engines",)))))
    assert children() == before


def test_the_first_validation_runs_without_what_the_kit_sets() -> None:
    settings = load_settings({"ASR_TASK_QUEUE_ENABLE": "2", "OMP_NUM_THREADS": "3"})
    variables = {"TASK_QUEUE_ENABLE": "2", "OMP_NUM_THREADS": "3", "HOME": "/root"}
    assert without_kit(variables, settings) == {"OMP_NUM_THREADS": "3", "HOME": "/root"}
    assert str(PROJECT / "tests" / "simulated_npu") in host_cost.simulated_npu()["PYTHONPATH"]
