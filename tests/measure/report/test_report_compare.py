"""`invoke report --compare A B`: what changed from one report to another."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import times_as
from invoking import assert_refused, invoke
from reference import read_json

from env.reference import SettingRow
from runtime.measure import records
from runtime.measure.report.compare import shown
from runtime.measure.report.record import Report
from runtime.tables import console


def text(before: Report, after: Report) -> str:
    """What is printed of two reports."""
    out = console()
    with out.capture() as captured:
        for part in shown(before, after):
            out.print(part)
    return captured.get()


@pytest.fixture
def other(report: Report) -> Report:
    """A report of the same host after a change: another torch, another setting, half the speed, a new error."""
    assert report.bench
    assert report.accuracy
    assert report.smoke
    where = replace(report.head.where, versions={**report.head.where.versions, "torch": "2.14.0"})
    rows = tuple(
        replace(row, value="3", origin="environment") if row.variable == "ASR_MAX_BATCH" else row
        for row in report.facts.settings
    )
    first, *more = report.smoke.verdicts
    score = report.accuracy.score
    rates = tuple(replace(rate, rate=0.5, low=0.4, high=0.6) for rate in score.overall)
    return replace(
        report,
        head=replace(report.head, where=where),
        facts=replace(report.facts, settings=rows),
        bench=times_as(report.bench, 100.0, "latency/total"),
        smoke=replace(report.smoke, verdicts=(replace(first, fault="error rate 50%"), *more)),
        accuracy=replace(report.accuracy, score=replace(score, overall=rates)),
        verdicts=(replace(report.verdicts[0], status="fail"), *report.verdicts[1:]),
    )


def test_what_changed_is_printed(report: Report, other: Report, tmp_path: Path) -> None:
    for name, record in (("a.json", report), ("b.json", other)):
        records.write(tmp_path / name, record)
    result = invoke("report", "--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert result.returncode == 0, result.stderr
    assert re.search(r"torch +2\.\S+ +2\.14\.0", result.stdout)
    assert re.search(r"ASR_MAX_BATCH +8 +3", result.stdout)
    assert re.search(r"It transcribes +pass: .+ +fail: ", result.stdout)
    assert re.search(r"english-1\.wav +pass +error rate 50%", result.stdout)
    assert re.search(r"Latency of one clip: whole .*100×? +worse", result.stdout)
    assert re.search(r"all, words .*50\.00% \(40\.00% to 60\.00%\)", result.stdout)
    assert "Hardware: the same" in result.stdout
    assert "ASR_DTYPE" not in result.stdout
    assert "prefill" not in result.stdout
    assert "$ invoke" not in result.stderr


def test_two_that_are_alike(report: Report) -> None:
    found = text(report, report)
    for title in ("Hardware", "Versions", "Weights", "Settings", "Verdicts", "Smoke"):
        assert f"{title}: the same" in found
    assert report.bench
    assert re.search(r"Figures: \d\d+ the same", found)
    assert "worse" not in found
    assert "better" not in found


def test_other_hardware_is_said_before_the_ratios(report: Report) -> None:
    where = replace(report.head.where, silicon="NPU", description="Ascend910B4")
    assert report.bench
    bench = replace(report.bench, head=replace(report.bench.head, where=where))
    npu = replace(report, head=replace(report.head, where=where), bench=bench)
    found = text(npu, report)
    assert re.search(r"silicon +NPU +CPU", found)
    assert "say nothing of the software" in found


def test_what_is_in_one_alone_is_named(report: Report) -> None:
    added = SettingRow("ASR_NEW", "1", "", "", "environment", "")
    facts = replace(report.facts, settings=(*report.facts.settings, added))
    found = text(replace(report, bench=None, accuracy=None), replace(report, facts=facts))
    assert "Figures: not compared, there are none before" in found
    assert "Error rates: not compared, there are none before" in found
    assert re.search(r"ASR_NEW +– +1", found)
    assert report.bench
    fewer = replace(report, bench=replace(report.bench, figures=report.bench.figures[1:]))
    assert f"Only before: {report.bench.figures[0].key}" in text(report, fewer)


def test_files_that_cannot_be_compared(report: Report, kept: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.json"
    records.write(good, report)
    told = read_json(good)
    told["head"]["version"] = 99
    newer = tmp_path / "newer.json"
    newer.write_text(records.json.dumps(told), encoding="utf-8")
    both = ("report", "--compare", good)
    assert_refused(invoke(*both, newer), str(newer), "version 99", "this kit reads version 2")
    assert_refused(invoke(*both, kept / "smoke.json"), "is no record of report")
    assert_refused(invoke(*both, tmp_path / "none.json"), "no such file", code=2)
    assert_refused(invoke(*both), "--compare (two files)", code=2)
