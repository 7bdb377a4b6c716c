"""Makes a report: facts, then the records that it rests on, then what follows from them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic

from pydantic import TypeAdapter

from env.errors import KitError
from env.settings import DEMO, Settings
from env.sources import PROJECT, under_project
from env.translation import Bilingual, Language, translated
from runtime.files import write_whole
from runtime.host.docker import show
from runtime.host.probe import Host
from runtime.host.processes import ProcessHandle, await_exit
from runtime.measure import records
from runtime.measure.accuracy.run import ACCURACY, Accuracy
from runtime.measure.bench import record as benchmark
from runtime.measure.records import COMPLETE, Kind, RunClock, Where
from runtime.measure.report import facts, render
from runtime.measure.report.record import FORM, FigureSource, Name, Report
from runtime.measure.report.sections import document
from runtime.measure.report.verdicts import QUESTIONS, judged
from runtime.measure.smoke.record import SMOKE, Smoke
from runtime.redaction import known_secrets, redact

INTERRUPTED_CODE = 130  # the exit code of a task that Ctrl-C ended
DEADLINE = 60.0  # seconds for a task to write what it has once it is interrupted
GRACE = 10.0  # seconds for what ends when the task has, such as multiprocessing's tracker of resources

SHOWN = 4  # package versions that are told where more differ

FOLDER = "report"
INTERRUPTED = "interrupted"

NO_DATA = translated("with real weights it needs a data set")
GIVE_DATA = "invoke accuracy DATA, then invoke report"
STOPPED = translated("the report was interrupted before it")
NO_DEVICE = translated("no device could be opened")


@dataclass(frozen=True)
class Ended:
    """How a task ended: its exit code, negative for a signal, the ids of processes that it left behind, and whether
    Ctrl-C meant this process too, not the task alone."""

    code: int
    left: tuple[int, ...] = ()
    stopped: bool = False

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.code in (INTERRUPTED_CODE, -signal.SIGINT)


def run(words: Sequence[str]) -> Ended:
    """Run `invoke` with these words, in a session of its own, and wait. Ctrl-C is handed on, once, and the task may
    write what it has; a second one ends it."""
    process = subprocess.Popen([sys.executable, "-m", "invoke", *words], cwd=PROJECT, start_new_session=True)
    try:
        show(["invoke", *words])
        return Ended(process.wait(), _left(process.pid))
    except KeyboardInterrupt:
        _interrupt(process)
        return Ended(INTERRUPTED_CODE, _left(process.pid), stopped=True)


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(DEADLINE)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)  # its session's group, by its id
        process.wait()


def _left(leader: int) -> tuple[int, ...]:
    """The processes of a session that do not end."""
    until = time.monotonic() + GRACE
    return tuple(pid for pid in _session(leader) if not _ends(pid, until))


def _ends(pid: int, until: float) -> bool:
    try:
        with ProcessHandle.of(pid).handle() as handle:
            return handle is None or await_exit(handle, max(0.0, until - time.monotonic()))
    except OSError:  # it has ended since
        return True


def _session(leader: int) -> tuple[int, ...]:
    """The processes that a session still has."""
    found = []
    for name in (entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with contextlib.suppress(OSError):  # it has ended since
            if os.getsid(int(name)) == leader:
                found.append(int(name))
    return tuple(sorted(found))


@dataclass(frozen=True)
class RecordPart(Generic[Kind]):
    """A task that writes a record: its name, the file, how that is read, and the flags with which it begins anew what
    it would go on with. Where a report cannot run it, `why` says why, and `advice` what to type."""

    name: Name
    path: Path
    read: Callable[[Path], Kind]
    renewed: tuple[str, ...] = ()
    why: Bilingual | None = None
    advice: str = ""


@dataclass(frozen=True)
class Obtained(Generic[Kind]):
    """A part's record, None if there is none, and where it is from; `stopped`: by Ctrl-C, which means the report."""

    record: Kind | None
    source: FigureSource
    stopped: bool = False


def obtain_part(part: RecordPart[Kind], now: Where, *, fresh: bool) -> Obtained[Kind]:
    """The part's record: the file, if it fits, else a run of the task. A run that fails, or is interrupted, is told in
    the source's notes."""
    record, why = _found(part, now, whole=True)
    source = FigureSource(part.name, str(part.path), "missing")
    if record and (not fresh or part.why):
        return Obtained(record, replace(source, used="taken", notes=(part.why,) if fresh and part.why else ()))
    notes = [why] if why else []
    if part.why:
        return Obtained(None, replace(source, notes=(*notes, part.why), advice=part.advice))
    before = _stamp(part.path)
    ended = run([part.name, *(part.renewed if fresh else ())])
    written = _stamp(part.path) != before
    record, why = _found(part, now, whole=False)
    failed = bool(ended.code) and not (record and written and record.head.complete)
    if ended.interrupted:
        notes.append(translated("interrupted"))
    elif failed:
        notes.append(translated("invoke {name} ended with exit code {code}", name=part.name, code=ended.code))
    source = replace(source, left=ended.left, failed=failed)
    if record is None:
        missing = replace(
            source, notes=(*notes, *([why] if why and why not in notes else ())), advice=f"invoke {part.name}"
        )
        return Obtained(None, missing, ended.stopped)
    return Obtained(record, replace(source, used="measured" if written else "taken", notes=tuple(notes)), ended.stopped)


def untried(part: RecordPart[Kind], why: Bilingual) -> Obtained[Kind]:
    """What there is of a part that was not even tried."""
    return Obtained(None, FigureSource(part.name, str(part.path), "missing", (why,), f"invoke {part.name}"))


def misfit(then: Where, now: Where) -> Bilingual | None:
    """What of model, device or software a record was made with that is not what is there now; None where all is."""
    asked = (
        (translated("silicon"), then.silicon, now.silicon),
        (translated("device"), then.description, now.description),
        (translated("model"), then.model, now.model),
        (translated("revision"), then.revision, now.revision),
        (translated("number format"), then.dtype, now.dtype),
        (translated("engine"), then.engine, now.engine),
        (translated("server"), then.url, now.url),
    )
    for what, one, other in asked:
        if one != other:
            there, here = one or "–", other or "–"
            return translated("{what} {there}, now {here}", what=what, there=there, here=here)
    names = [name for name in sorted({*then.versions, *now.versions}) if _differs(name, then, now)]
    if not names:
        return None
    one, other = (", ".join(f"{name} {w.versions.get(name, '–')}" for name in names[:SHOWN]) for w in (then, now))
    more = len(names) - SHOWN
    if more > 0:
        return translated("{one}, now {other}, and {more} more", one=one, other=other, more=more)
    return translated("{one}, now {other}", one=one, other=other)


def _found(part: RecordPart[Kind], now: Where, *, whole: bool) -> tuple[Kind | None, Bilingual | None]:
    """The record that is there, or why it cannot be taken; None and None where there is none."""
    if not part.path.exists():
        return None, None
    try:
        record = part.read(part.path)
    except KitError as error:
        return None, translated("the file that was there {reason}", reason=error.reason)
    other = misfit(record.head.where, now)
    if other:
        return None, translated("the file that was there is of another run: {other}", other=other)
    if whole and record.head.ended != COMPLETE:
        return None, translated("the file that was there is not whole: {ended}", ended=record.head.ended)
    return record, None


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _differs(name: str, then: Where, now: Where) -> bool:
    return then.versions.get(name) != now.versions.get(name)


def make(settings: Settings, *, fresh: bool, tell: Callable[[str], None] = lambda _: None) -> Report:
    """A report of now. Records that fit are taken, unless `fresh`; the others are measured by child processes, whose
    output passes through. `tell` hears what goes on.

    Raises KeyboardInterrupt before the facts are known; later it makes `Report.head.ended` say so.
    """
    clock = RunClock()
    tell("examining this host")
    found = facts.gather(settings, Host())
    tell("opening the device")
    spot = facts.spot(settings)
    stopped = False

    def obtain(part: RecordPart[Any]) -> Obtained[Any]:
        nonlocal stopped
        if stopped or spot.fault:
            return untried(part, STOPPED if stopped else NO_DEVICE)
        tell(part.name)
        try:
            obtained = obtain_part(part, spot.where, fresh=fresh)
        except KeyboardInterrupt:  # not while the task ran, of which all is known
            obtained = replace(untried(part, STOPPED), stopped=True)
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


def _parts(settings: Settings) -> tuple[RecordPart[Smoke], RecordPart[benchmark.Benchmark], RecordPart[Accuracy]]:
    out = under_project(settings.out_dir)
    why, advice = (NO_DATA, GIVE_DATA) if settings.model != DEMO else (None, "")
    return (
        RecordPart("smoke", out / "smoke.json", lambda path: records.read(path, Smoke, SMOKE)),
        RecordPart("bench", out / "bench" / "bench.json", lambda path: benchmark.read(str(path))),
        RecordPart(
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
