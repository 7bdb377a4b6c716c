"""Makes a report: facts, then the records that it rests on, then what follows from them."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from env.settings import DEMO, Settings
from env.sources import under_project
from runtime.files import write_whole
from runtime.host.probe import Host
from runtime.measure import records
from runtime.measure.accuracy.record import ACCURACY, Accuracy
from runtime.measure.bench import record as benchmark
from runtime.measure.quantities import Language, Words
from runtime.measure.records import COMPLETE, Clock
from runtime.measure.report import evidence, facts, render
from runtime.measure.report.content import document
from runtime.measure.report.evidence import Obtained, Part
from runtime.measure.report.record import FORM, Report
from runtime.measure.report.verdicts import QUESTIONS, judged
from runtime.measure.smoke.record import SMOKE, Smoke
from runtime.redaction import known_secrets, redact

FOLDER = "report"
INTERRUPTED = "interrupted"

NO_DATA = Words("with real weights it needs a data set", "使用真实权重时需要数据集")
GIVE_DATA = "invoke accuracy DATA, then invoke report"
STOPPED = Words("the report was interrupted before it", "报告在此之前被中断")
NO_DEVICE = Words("no device could be opened", "无法打开任何设备")


def make(settings: Settings, *, fresh: bool, tell: Callable[[str], None] = lambda _: None) -> Report:
    """A report of now. Records that fit are taken, unless `fresh`; the others are measured by child processes, whose
    output passes through. `tell` hears what goes on.

    Raises KeyboardInterrupt before the facts are known; later it makes `Report.head.ended` say so.
    """
    clock = Clock()
    tell("examining this host")
    found = facts.gather(settings, Host())
    tell("opening the device")
    spot = facts.spot(settings)
    stopped = False

    def obtain(part: Part[Any]) -> Obtained[Any]:
        nonlocal stopped
        if stopped or spot.fault:
            return evidence.untried(part, STOPPED if stopped else NO_DEVICE)
        tell(part.name)
        try:
            obtained = evidence.obtain(part, spot.where, fresh=fresh)
        except KeyboardInterrupt:  # not while the task ran, of which all is known
            obtained = replace(evidence.untried(part, STOPPED), stopped=True)
        stopped = obtained.stopped
        return obtained

    smoke, bench, accuracy = (obtain(part) for part in _parts(settings))
    after, _ = facts.chips(Host())
    report = Report(
        head=clock.head(FORM, spot.where, ended=INTERRUPTED if stopped else COMPLETE),
        facts=replace(found, device_fault=spot.fault, smi_after=after),
        sources=(smoke.source, bench.source, accuracy.source),
        smoke=smoke.record,
        bench=bench.record,
        accuracy=accuracy.record,
        verdicts=(),
    )
    return _without_secrets(replace(report, verdicts=judged(report)), settings)


def write(report: Report, directory: Path, language: Language) -> list[Path]:
    """Write the report in its three forms, and the pictures of the Markdown. Raises KitError where one cannot be
    written."""
    shown = document(report, language)
    texts = {f"{render.PICTURES}/{name}": svg for name, svg in render.pictures(shown).items()}
    texts |= {"report.md": render.markdown(shown), "report.html": render.html(shown)}
    for name, text in texts.items():
        write_whole(directory / name, text)
    records.write(directory / "report.json", report)
    return [directory / name for name in ("report.md", "report.html", "report.json")]


def faults(report: Report) -> list[str]:
    """Why the exit code is not 0, in words: what failed, or did not come to its end."""
    found = [QUESTIONS[one.question].en + ": fail" for one in report.verdicts if one.status == "fail"]
    found += [f"invoke {source.name} did not come to its end" for source in report.sources if source.failed]
    return found + ([report.facts.device_fault] if report.facts.device_fault else [])


def read(path: Path) -> Report:
    """A report from its JSON. Raises UsageError where there is no such file, KitError where it is no report in the
    version that this kit reads, or a damaged one."""
    return records.read(path, Report, FORM)


def _parts(settings: Settings) -> tuple[Part[Smoke], Part[benchmark.Benchmark], Part[Accuracy]]:
    out = under_project(settings.out_dir)
    why, advice = (NO_DATA, GIVE_DATA) if settings.model != DEMO else (None, "")
    return (
        Part("smoke", out / "smoke.json", lambda path: records.read(path, Smoke, SMOKE)),
        Part("bench", out / "bench" / "bench.json", lambda path: benchmark.read(str(path))),
        Part(
            "accuracy",
            out / "accuracy" / "accuracy.json",
            lambda path: records.read(path, Accuracy, ACCURACY),
            renewed=("--fresh",),
            why=why,
            advice=advice,
        ),
    )


def _without_secrets(report: Report, settings: Settings) -> Report:
    """The same without what is, or looks like, a secret in any of its texts."""
    secrets = known_secrets(settings)

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return redact(value, secrets)
        if isinstance(value, dict):
            return {cleaned(key): cleaned(item) for key, item in value.items()}
        return [cleaned(item) for item in value] if isinstance(value, list | tuple) else value

    return TypeAdapter(Report).validate_python(cleaned(asdict(report)))
