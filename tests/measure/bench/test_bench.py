"""`invoke bench`: what it prints and keeps, what it refuses before anything is loaded, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import SMALL, times_as
from invoking import INVOKE, assert_refused, invoke
from serving import PATIENCE, Served
from simulated_npu import on_npu

from env.errors import KitError, UsageError
from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime.demo import Clip
from runtime.measure import records
from runtime.measure.bench.record import Benchmark, Plan, read
from runtime.measure.bench.run import (
    FULL,
    QUICK,
    TABLE,
    BenchFailure,
    BenchObserver,
    BenchOptions,
    carry_out,
    order,
    plan,
    run,
)
from runtime.measure.bench.tables import markdown
from runtime.measure.metrics import PARTS

LATENCY = replace(SMALL, parts=("latency",), runs=6)


def test_a_small_benchmark_beside_the_first_validation(tmp_path: Path) -> None:
    small = ("--parts", "loading,latency,throughput", "--runs", "4", "--warmups", "1", "--batches", "1,2")
    result = invoke("bench", *small, "--baseline", "seed", ASR_OUT_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("On a CPU, no NPU: cpu")
    record = read(str(tmp_path / "bench" / "bench.json"))
    assert record.head.complete
    assert record.head.command == f"invoke bench {' '.join(small)} --baseline seed"
    found = {figure.key: figure for figure in record.figures}
    assert (found["latency/total"].spread.count, found["latency/total"].warmups) == (4, 1)
    assert {"loading/seconds", "memory/weights", "memory/unloaded", "throughput/speed@2"} <= set(found)
    assert re.search(r"Latency of one clip: whole +734\.3 ms", result.stdout)
    assert "Baseline: an NPU · Ascend910B4 · Qwen/Qwen3-ASR-1.7B" in result.stdout
    assert "These ratios say nothing of the software, as other things were used: silicon NPU there" in result.stdout
    assert "Not measured by this kit" in result.stdout
    assert "better" not in result.stdout
    names = {path.name for path in (tmp_path / "bench").iterdir()}
    assert {"bench.json", "bench.md", "latency.png", "throughput.svg"} <= names
    assert "| 2 | a batch |" in (tmp_path / "bench" / "bench.md").read_text(encoding="utf-8")
    assert "\r" not in result.stdout + result.stderr


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    words = ("--parts", "throughput,closed", "--batches", "1", "--clients", "1", "--requests", "100000")
    with subprocess.Popen(
        [INVOKE, "bench", *words, "--output", tmp_path],
        cwd=PROJECT,
        env={**os.environ, "ASR_DEVICE": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        late = threading.Timer(5 * PATIENCE, process.kill)
        late.start()
        try:
            assert process.stderr
            assert "closed: measuring\n" in process.stderr
            killed = read(str(tmp_path / "bench.json"))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
        finally:
            late.cancel()
            process.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("bench: interrupted in closed; what was measured is kept in")
    assert "Traceback" not in err
    record = read(str(tmp_path / "bench.json"))
    assert (killed.head.ended, record.head.ended) == ("runs", "interrupted in closed")
    assert [figure.key for figure in killed.part("throughput")] == [figure.key for figure in record.part("throughput")]
    assert "Throughput over batch" in out
    assert "Not complete: interrupted in closed." in (tmp_path / "bench.md").read_text(encoding="utf-8")


def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{", encoding="utf-8")
    result = invoke("bench", "--baseline", tmp_path / "bench.json", ASR_MODEL="/nowhere")
    assert_refused(result, "--baseline", "is no JSON file, or cut off", code=2)
    assert_refused(invoke("bench", "--output", tmp_path, ASR_MODEL="/nowhere"), "/nowhere: no such directory")
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json"}


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("parts", "latency,speed", "there is no part 'speed', choose from: loading, latency"),
        ("runs", "0", "'0', expected a whole number of 1 to 100000"),
        ("runs", "many", "'many', expected a whole number"),
        ("warmups", "-1", "'-1', expected a whole number of 0 to 1000"),
        ("batches", "1,,2", "'1,,2' has an empty place"),
        ("batches", "1,2.5", "'2.5', expected a whole number"),
        ("lengths", "nan", "'nan', expected a number of 0.5 to 14400"),
        ("minutes", "inf", "'inf', expected a number of 0.1 to 240"),
        ("clients", "0,1", "'0', expected a whole number of 1 to 1024"),
        ("rates", "0", "'0', expected a number"),
        ("requests", "1e3", "'1e3', expected a whole number"),
        ("url", "localhost:8000", "'localhost:8000' is no URL"),
        ("url", "http://", "'http://' is no URL"),
        ("clip", "missing.wav", "missing.wav: no such file"),
        ("clip", "tests", "tests: is a directory"),
        ("clip", "Makefile", "no audio that can be read"),
    ],
)
def test_a_bad_value_is_named(flag: str, value: str, words: str, settings: Settings) -> None:
    with pytest.raises(UsageError) as refused:
        plan({flag: value}, settings)
    assert refused.value.subject == f"--{flag}"
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("baseline", "allowed", "words"),
    [
        ("", "10%", "--fail-if-slower: needs something to compare with → add --baseline"),
        ("seed", "10", "--fail-if-slower: '10', expected a percentage such as 10%"),
        ("seed", "-5%", "--fail-if-slower: '-5%'"),
        ("missing.json", "", "--baseline: missing.json: no such file"),
    ],
)
def test_a_bad_comparison_is_named(baseline: str, allowed: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        order(FULL, tmp_path, baseline=baseline, fail_if_slower=allowed)
    assert words in str(refused.value)


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made: Not a directory"):
        order(FULL, tmp_path / "file" / "bench", baseline="", fail_if_slower="")


def test_flags_change_a_quick_plan_and_a_full_one(settings: Settings, speech: list[Clip]) -> None:
    typed = {"batches": "8, 2,2", "minutes": "0.5", "clip": str(speech[0].path), "parts": "engines,latency", "runs": ""}
    for quick, base in ((False, FULL), (True, QUICK)):
        assert plan(typed, settings, quick=quick) == replace(
            base, batches=(2, 8), minutes=(0.5,), clip=speech[0].path, parts=("latency", "engines")
        )
    assert plan({}, settings) == FULL
    assert FULL.runs == Plan(parts=()).runs


def test_every_part_can_be_asked_for() -> None:
    within_memory = {"batch-memory", "length-memory"}
    assert set(TABLE) == set(PARTS) - within_memory - {"host"}  # which invoke dev.host-cost prints
    assert set(FULL.parts) == set(TABLE)


def slower(before: Benchmark, settings: Settings, folder: Path, asked: Plan = LATENCY) -> BenchFailure | None:
    """How a run ends that may be slower than another by 10 %."""
    records.write(folder / "before.json", before)
    wanted = order(asked, folder / "out", baseline=str(folder / "before.json"), fail_if_slower="10%")
    return carry_out(wanted, settings)


def doctored(measured: Benchmark, ratio: float) -> Benchmark:
    """A run whose latencies were so many times what they are."""
    return times_as(measured, ratio, *{figure.quantity for figure in measured.part("latency")})


def test_slower_than_the_baseline_fails(
    measured: Benchmark, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = slower(doctored(measured, 1 / 100), settings, tmp_path)
    assert failure
    assert failure.code == 1
    assert "worse than the baseline by more than 10%" in failure.reason
    assert "latency/total" in failure.reason
    assert "throughput" not in failure.reason
    assert re.search("Latency of one clip: whole .* worse", capsys.readouterr().out)


def test_faster_than_a_baseline_that_was_interrupted(
    measured: Benchmark, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = replace(measured, head=replace(measured.head, ended="interrupted in long"))
    assert slower(doctored(partial, 100), settings, tmp_path) is None
    out = capsys.readouterr().out
    assert "Nothing is worse than the baseline by more than 10%, and noise." in out
    assert "The baseline is not complete: interrupted in long." in out


def test_only_the_same_things_can_be_slower(settings: Settings, tmp_path: Path) -> None:
    wanted = order(LATENCY, tmp_path, baseline="seed", fail_if_slower="10%")
    with pytest.raises(UsageError) as refused:
        carry_out(wanted, settings)
    for words in ("--fail-if-slower", "silicon: NPU there, CPU here", "clip: asr_zh.wav there"):
        assert words in str(refused.value)
    assert not (tmp_path / "bench.json").exists()


def test_nothing_to_judge_is_a_failure(measured: Benchmark, settings: Settings, tmp_path: Path) -> None:
    before = replace(measured, figures=tuple(measured.part("latency")))
    failure = slower(before, settings, tmp_path, replace(LATENCY, parts=("loading",)))
    assert failure == BenchFailure("--fail-if-slower had nothing to judge: the baseline has none of these figures", 1)


def test_a_part_that_cannot_be_measured_is_absent_and_the_rest_goes_on(settings: Settings, clips: list[Clip]) -> None:
    (silence,) = (clip.path for clip in clips if not clip.language)
    record = run(settings, replace(SMALL, parts=("latency", "throughput"), clip=silence), BenchObserver())
    assert record.head.complete
    assert {absent.what for absent in record.absent} == {"latency", "throughput"}
    assert all("is silent" in absent.reason and absent.advice for absent in record.absent)
    assert record.part("memory")
    assert record.clip == silence.name


def failing(part: str) -> Callable[[str], None]:
    def tell(words: str) -> None:
        if words.startswith(part):
            raise RuntimeError("the terminal is gone")

    return tell


def test_an_unforeseen_failure_keeps_what_was_measured(settings: Settings) -> None:
    kept: list[Benchmark] = []
    listener = BenchObserver(tells=failing("throughput"), keeps=kept.append)
    with pytest.raises(RuntimeError):
        run(settings, replace(SMALL, parts=("latency", "throughput")), listener)
    assert [record.head.ended for record in kept] == ["runs", "failed (RuntimeError) in throughput"]
    assert kept[-1].part("latency")


def test_a_server_is_asked_and_nothing_is_loaded(server: Served, settings: Settings, tmp_path: Path) -> None:
    asked = replace(SMALL, parts=("latency", "closed"), clients=(2,), requests=4, url=server.url)
    unloadable = settings.model_copy(update={"model": "/nowhere"})
    assert carry_out(BenchOptions(asked, tmp_path, None, None), unloadable) is None
    record = read(str(tmp_path / "bench.json"))
    assert record.head.where.url == server.url
    assert {figure.key for figure in record.figures} >= {"closed/throughput@2", "closed/first-token@2"}
    (absent,) = record.absent
    assert (absent.what, absent.advice) == ("latency", "measure without --url")
    alone = replace(asked, parts=("latency",))
    failure = carry_out(BenchOptions(alone, tmp_path, None, None), unloadable)
    assert failure == BenchFailure("nothing could be measured, for the reasons above", 1)


def test_a_server_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="cannot be reached"):
        carry_out(BenchOptions(replace(SMALL, url="http://127.0.0.1:9"), tmp_path, None, None), settings)
    assert not list(tmp_path.iterdir())


@on_npu
def test_the_simulated_npu_is_named_wherever_figures_are() -> None:
    settings = load_settings({"ASR_DEVICE": "npu:0"})
    record = run(settings, replace(SMALL, parts=("loading",)), BenchObserver())
    assert record.head.where.silicon == "simulated NPU"
    assert "a simulated NPU, which says nothing of an NPU's speed" in markdown(record)
    assert record.part("loading")


def test_nothing_of_it_imports_torch_before_the_device_is_open() -> None:
    """torch_npu and CANN read once, at import, the environment that opening the device sets."""
    modules = "runtime.measure.bench.run, runtime.measure.bench.resources, runtime.tasks.measure"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
