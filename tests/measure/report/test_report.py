"""`invoke report`: what it takes, measures anew and names as missing, how it ends, and what never gets into it."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import times_as
from invoking import INVOKE, assert_refused, invoke
from reference import read_json
from simulated_npu import environment
from vllm_server import vllm_server

from env.settings import DEMO, Settings
from env.sources import PROJECT
from env.translation import Bilingual
from runtime.demo import HELD_OUT_SET
from runtime.measure import records
from runtime.measure.bench.record import SEED, read
from runtime.measure.records import Where
from runtime.measure.report import run
from runtime.measure.report.document import ReportDocument, Say
from runtime.measure.report.facts import spot
from runtime.measure.report.record import Report
from runtime.measure.report.render import html, markdown
from runtime.measure.report.run import RecordPart, misfit, obtain_part
from runtime.measure.report.sections import document
from runtime.measure.report.sections.summary import banner
from runtime.measure.report.verdicts import QUESTIONS, judged
from runtime.measure.smoke.record import SMOKE, Smoke
from runtime.measure.statistics import figure
from runtime.transcriber import Transcriber

SECRETS = {
    "ASR_HUB_TOKEN": "hf_QmVyeVNlY3JldFRva2Vu",
    "ASR_API_KEY": "opensesame-9c1f7a",
    "ASR_HUB_ENDPOINT": "http://reader:1ndexw0rd@hub.example/api",
    "HTTPS_PROXY": "http://builder:pr0xyw0rd@proxy.example:3128",
}
HIDDEN = ("hf_Qm", "opensesame", "1ndexw0rd", "reader:", "pr0xyw0rd", "builder")


@pytest.fixture
def out(kept: Path, tmp_path: Path) -> Path:
    """A copy of the kept records that a test may change."""
    return shutil.copytree(kept, tmp_path / "out")


def reported(out: Path) -> Report:
    """The report that is written there."""
    return run.read(out / "report" / "report.json")


def said(shown: ReportDocument) -> str:
    """Everything that a report says, in Markdown and in HTML."""
    return markdown(shown) + html(shown)


def status(report: Report, question: str) -> tuple[str, str]:
    """The verdict on a question, and why."""
    (verdict,) = (one for one in report.verdicts if one.question == question)
    return verdict.status, verdict.reason.en


def part(out: Path) -> RecordPart[Smoke]:
    """The smoke test as a part of a report."""
    return RecordPart("smoke", out / "smoke.json", lambda path: records.read(path, Smoke, SMOKE))


def test_records_that_fit_are_taken_and_a_damaged_one_is_made_anew(out: Path) -> None:
    (out / "smoke.json").write_text('{"head": {"form": "smoke"', encoding="utf-8")
    result = invoke("report", ASR_OUT_DIR=str(out), **SECRETS)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "$ invoke smoke" in result.stderr
    assert "$ invoke bench" not in result.stderr
    assert "english-1.wav" in result.stdout  # what the child prints passes through
    assert "Measured on a CPU, not on an NPU" in result.stdout
    report = reported(out)
    assert {source.name: source.used for source in report.sources} == {
        "smoke": "measured",
        "bench": "taken",
        "accuracy": "taken",
    }
    (note,) = report.source("smoke").notes
    assert note.en == "the file that was there is no JSON file, or cut off"
    assert report.smoke
    assert report.smoke.passed
    assert report.head.complete
    files = {path.name: path.read_text(encoding="utf-8") for path in (out / "report").rglob("*") if path.is_file()}
    assert {"report.md", "report.html", "report.json", "latency.svg", "throughput.svg"} <= set(files)
    for name, text in files.items():
        for secret in HIDDEN:
            assert secret not in text, (name, text[max(text.find(secret) - 80, 0) :][:160])
    assert "hub.example" in files["report.md"]


def test_the_report_of_a_fresh_machine_has_accuracy(out: Path, tmp_path: Path) -> None:
    """What scores the demo model comes with the kit: no espeak-ng, no scipy, no data set."""
    shutil.rmtree(out / "accuracy")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "sitecustomize.py").write_text('import sys\n\nsys.modules["scipy"] = None\n', encoding="utf-8")
    assert shutil.which("espeak-ng", path=str(fresh)) is None
    result = invoke("report", ASR_OUT_DIR=str(out), PATH=str(fresh), PYTHONPATH=str(fresh))
    assert result.returncode == 0, result.stdout + result.stderr
    report = reported(out)
    assert report.source("accuracy").used == "measured"
    verdict, why = status(report, "accuracy")
    assert verdict == "pass"
    assert "demo model, held-out: Chinese" in why
    assert report.accuracy
    card = (HELD_OUT_SET.parent / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| error rate \| ([\d.]+)%.* \| ([\d.]+)%.* \|$", card, re.MULTILINE)
    rates = {rate.name: rate.rate for rate in report.accuracy.score.languages}
    stated = {name: float(rate) / 100 for name, rate in zip(("English", "Chinese"), row, strict=True)}
    assert rates == pytest.approx(stated, abs=0.005)  # another CPU may tip a word over
    assert "Error rates" in (out / "report" / "report.md").read_text(encoding="utf-8")


def test_what_it_says_of_a_run_on_the_demo_model(report: Report) -> None:
    assert [one.question for one in report.verdicts] == list(QUESTIONS)
    assert status(report, "smoke") == ("pass", "9 clips and 11 checks passed")
    assert status(report, "resources")[0] == "pass"
    assert status(report, "stack")[0] == "pass"
    verdict, why = status(report, "accuracy")
    assert verdict == "not run"
    assert "nobody states a figure for bundled clips" in why
    assert status(report, "speed")[0] == "not run"
    assert "silicon NPU there, CPU here" in status(report, "speed")[1]
    english, chinese = (said(document(report, language)) for language in ("en", "zh"))
    for words in ("Measured on a CPU, not on an NPU", "Elsewhere: Ascend910B4", "734", "embedded demo model"):
        assert words in english
    for words in ("在 CPU 上测得", "未使用 NPU", "显存", "驱动", "昇腾", "他处"):
        assert words in chinese
    assert "Measured on an NPU" not in english
    assert report.bench
    (total,) = (figure for figure in report.bench.figures if figure.quantity == "latency/total")
    assert "each measured once, n = 1" in english
    assert f"Runs: {total.spread.count}, after {total.warmups} for warming up" in english


def test_what_did_not_run_is_named(report: Report) -> None:
    said_of = markdown(document(report, "en"))
    assert "Not run: Long audio was not asked for → invoke bench" in said_of
    assert "Not run: Server, closed arrival was not asked for" in said_of
    bare = replace(
        report, smoke=None, bench=None, accuracy=None, sources=tuple(map(_gone, report.sources)), verdicts=()
    )
    bare = replace(bare, verdicts=judged(bare))
    assert {status(bare, name) for name in ("smoke", "accuracy", "speed")} == {("not run", "the disk burnt → call us")}
    shown = markdown(document(bare, "zh"))
    assert shown.count("未执行：磁盘烧毁") >= 8
    assert banner(bare, Say("en")).title == "Nothing was measured"


def _gone(source):  # type: ignore[no-untyped-def]
    return replace(source, used="missing", notes=(Bilingual("the disk burnt", "磁盘烧毁"),), advice="call us")


def test_without_the_device_asked_for_nothing_is_measured_and_all_is_named(out: Path) -> None:
    result = invoke("report", "--lang", "zh", ASR_OUT_DIR=str(out), ASR_DEVICE="npu")
    assert_refused(result, "torch_npu is not installed")
    report = reported(out)
    assert not report.measured
    assert "torch_npu is not installed" in report.facts.device_fault
    assert {source.used for source in report.sources} == {"missing"}
    text = (out / "report" / "report.md").read_text(encoding="utf-8")
    assert "🟥 **未进行任何测量" in text
    assert "CPU 上测得" not in text


def test_the_simulated_npu_is_called_that(
    out: Path, report: Report, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(ASR_DEVICE="npu", ASR_OUT_DIR=str(out)).items():
        monkeypatch.setenv(name, value)
    now = spot(settings)
    assert (now.where.silicon, now.fault) == ("simulated NPU", "")
    told = Bilingual("this test", "本测试")
    obtained = obtain_part(replace(part(out), why=told), now.where, fresh=False)
    assert obtained.record is None
    assert [note.en for note in obtained.source.notes] == [
        "the file that was there is of another run: silicon CPU, now simulated NPU",
        "this test",
    ]
    simulated = replace(report, head=replace(report.head, where=now.where), bench=None)
    english, chinese = (said(document(simulated, language)) for language in ("en", "zh"))
    assert "Simulated NPU: no NPU was used" in english
    assert "speed and memory mean nothing for an NPU" in english
    assert "未使用真实 NPU" in chinese
    assert "Measured on" not in english


def test_ctrl_c_keeps_what_is_known(tmp_path: Path) -> None:
    with subprocess.Popen(
        [INVOKE, "report"],
        cwd=PROJECT,
        env={**os.environ, "ASR_DEVICE": "cpu", "ASR_OUT_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr
            assert any("$ invoke smoke" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "report: interrupted; the same command goes on from there"
    report = reported(tmp_path)
    assert report.head.ended == "interrupted"
    assert "interrupted" in report.source("smoke").notes[-1].en
    assert report.source("bench").notes[0].en == "the report was interrupted before it"
    assert "This run is not complete: interrupted" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "Written to" in out


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda where: replace(where, dtype="bfloat16"), "number format bfloat16, now float32"),
        (lambda where: replace(where, revision="abc"), "revision abc, now –"),
        (lambda where: replace(where, model="weights/x"), "model weights/x, now demo"),
        (lambda where: replace(where, url="http://h:1"), "server http://h:1, now –"),
        (lambda where: replace(where, versions={**where.versions, "torch": "2.9.0"}), "torch 2.9.0, now torch 2."),
    ],
)
def test_a_record_of_something_else_does_not_fit(report: Report, changed: Callable[[Where], Where], why: str) -> None:
    where = report.head.where
    found = misfit(changed(where), where)
    assert found
    assert found.en.startswith(why)
    assert misfit(where, where) is None


def test_a_failed_task_is_a_finding_not_the_end(out: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "smoke.json").unlink()
    monkeypatch.setenv("ASR_MAX_BATCH", "none")
    obtained = obtain_part(part(out), report.head.where, fresh=False)
    assert (obtained.record, obtained.stopped, obtained.source.failed) == (None, False, True)
    assert obtained.source.notes == (Bilingual("invoke smoke ended with exit code 2", "invoke smoke 以退出码 2 结束"),)
    failing = replace(report, smoke=None, sources=(obtained.source, *report.sources[1:]))
    assert run.faults(failing) == ["invoke smoke did not come to its end"]


def test_speed_is_judged_beside_the_first_validation_on_its_own_hardware_alone(report: Report) -> None:
    first = read(SEED)
    same = replace(report, bench=replace(first, plan={"clip": "asr_zh.wav"}), head=first.head, verdicts=())
    assert next(one for one in judged(same) if one.question == "speed").status == "pass"
    assert report.bench
    slow = times_as(replace(report.bench, head=first.head, plan={}), 100.0, "latency/total")
    verdict = next(one for one in judged(replace(same, bench=slow)) if one.question == "speed")
    assert verdict.status == "fail"
    assert "latency/total" in verdict.reason.en


def test_an_npu_report_says_so_and_leaves_no_memory_unnoticed(report: Report) -> None:
    assert report.bench
    where = replace(report.head.where, silicon="NPU", description="Ascend910B4", model="weights/Qwen3-ASR-1.7B")
    figures = times_as(report.bench, 0.0, "memory/before", "memory/unloaded")
    npu = replace(report, head=replace(report.head, where=where), bench=figures)
    assert banner(npu, Say("zh")).tone == "npu"
    assert next(one for one in judged(npu) if one.question == "resources").status == "pass"
    kept = replace(npu, bench=times_as(report.bench, 0.0, "memory/before"))
    assert next(one for one in judged(kept) if one.question == "resources").status == "fail"
    left = replace(npu, sources=(replace(npu.sources[0], left=(4711,)), *npu.sources[1:]))
    assert "4711" in next(one for one in judged(left) if one.question == "resources").reason.en


def test_a_vllm_elsewhere_is_unknown_silicon_and_both_engines_stand_side_by_side(report: Report) -> None:
    assert report.bench
    place = replace(report.head.where, silicon="unknown", engine="vllm", description="vLLM at http://h:1")
    place = replace(place, versions={**place.versions, "vllm": "0.18.0"})
    ratio = figure("vllm/load/throughput-ratio", [1.4, 1.6, 1.5], at=16)
    bench = replace(report.bench, figures=(*report.bench.figures, ratio), sides=(report.head.where, place))
    other = replace(report, bench=bench, head=replace(report.head, where=place))
    english, chinese = (said(document(other, language)) for language in ("en", "zh"))
    for words in (
        "Measured on unknown silicon",
        "vllm 0.18.0",
        "vLLM at http://h:1",
        "throughput, vLLM / transformers",
    ):
        assert words in english
    assert "almost equally likely" in english
    assert "No NPU took part" not in english
    assert "在未知硬件上测得" in chinese
    assert "almost equally likely" not in said(document(report, "en"))


def test_a_vllm_is_asked_what_it_runs_on(
    transcriber: Transcriber, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vllm_server(transcriber) as server:
        asked = settings.model_copy(update={"engine": "vllm", "vllm_url": server.url})
        monkeypatch.setenv("ASR_ENGINE", "vllm")
        monkeypatch.setenv("ASR_VLLM_URL", server.url)
        now = spot(asked)
    assert (now.where.engine, now.where.silicon, now.fault) == ("vllm", "unknown", "")
    assert server.url in now.where.description


def test_its_json_can_be_read_back(report: Report, tmp_path: Path) -> None:
    paths = run.write(report, tmp_path, "en")
    assert [path.name for path in paths] == ["report.md", "report.html", "report.json"]
    assert run.read(tmp_path / "report.json") == report
    told = read_json(tmp_path / "report.json")
    assert (told["head"]["form"], told["head"]["version"]) == ("report", 2)
    assert report.facts.weights.model == DEMO


def test_wrong_usage() -> None:
    assert_refused(invoke("report", "--lang", "fr"), "'fr' is neither en nor zh", code=2)
