"""The records that a report rests on: taken where they fit what is there now, measured where they do not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

from env.errors import KitError
from runtime.measure.quantities import Words
from runtime.measure.records import COMPLETE, Kind
from runtime.measure.report import child
from runtime.measure.report.record import Name, Source
from runtime.measure.where import Where

SHOWN = 4  # package versions that are told where more differ


@dataclass(frozen=True)
class Part(Generic[Kind]):
    """A task that writes a record: its name, the file, how that is read, and the flags with which it begins anew what
    it would go on with. Where a report cannot run it, `why` says why, and `advice` what to type."""

    name: Name
    path: Path
    read: Callable[[Path], Kind]
    renewed: tuple[str, ...] = ()
    why: Words | None = None
    advice: str = ""


@dataclass(frozen=True)
class Obtained(Generic[Kind]):
    """A part's record, None if there is none, and where it is from; `stopped`: by Ctrl-C, which means the report."""

    record: Kind | None
    source: Source
    stopped: bool = False


def obtain(part: Part[Kind], now: Where, *, fresh: bool) -> Obtained[Kind]:
    """The part's record: the file, if it fits, else a run of the task. A run that fails, or is interrupted, is told in
    the source's notes."""
    record, why = _found(part, now, whole=True)
    source = Source(part.name, str(part.path), "missing")
    if record and (not fresh or part.why):
        return Obtained(record, replace(source, used="taken", notes=(part.why,) if fresh and part.why else ()))
    notes = [why] if why else []
    if part.why:
        return Obtained(None, replace(source, notes=(*notes, part.why), advice=part.advice))
    before = _stamp(part.path)
    ended = child.run([part.name, *(part.renewed if fresh else ())])
    written = _stamp(part.path) != before
    record, why = _found(part, now, whole=False)
    failed = bool(ended.code) and not (record and written and record.head.complete)
    if ended.interrupted:
        notes.append(Words("interrupted", "被中断"))
    elif failed:
        notes.append(Words(f"invoke {part.name} ended with exit code {ended.code}", _ended(part.name, ended.code)))
    source = replace(source, left=ended.left, failed=failed)
    if record is None:
        missing = replace(
            source, notes=(*notes, *([why] if why and why not in notes else ())), advice=f"invoke {part.name}"
        )
        return Obtained(None, missing, ended.stopped)
    return Obtained(record, replace(source, used="measured" if written else "taken", notes=tuple(notes)), ended.stopped)


def untried(part: Part[Kind], why: Words) -> Obtained[Kind]:
    """What there is of a part that was not even tried."""
    return Obtained(None, Source(part.name, str(part.path), "missing", (why,), f"invoke {part.name}"))


def misfit(then: Where, now: Where) -> Words | None:
    """What of model, device or software a record was made with that is not what is there now; None where all is."""
    asked = (
        ("silicon", "计算硬件", then.silicon, now.silicon),
        ("device", "设备", then.description, now.description),
        ("model", "模型", then.model, now.model),
        ("revision", "权重版本", then.revision, now.revision),
        ("number format", "数值格式", then.dtype, now.dtype),
        ("engine", "推理引擎", then.engine, now.engine),
        ("server", "服务", then.url, now.url),
    )
    for english, chinese, one, other in asked:
        if one != other:
            there, here = one or "–", other or "–"
            return Words(f"{english} {there}, now {here}", f"{chinese}为 {there},现为 {here}")
    names = [name for name in sorted({*then.versions, *now.versions}) if _differs(name, then, now)]
    if not names:
        return None
    one, other = (", ".join(f"{name} {w.versions.get(name, '–')}" for name in names[:SHOWN]) for w in (then, now))
    more = len(names) - SHOWN
    return Words(
        f"{one}, now {other}" + (f", and {more} more" if more > 0 else ""),
        f"{one},现为 {other}" + (f",另有 {more} 个软件包不同" if more > 0 else ""),
    )


def _found(part: Part[Kind], now: Where, *, whole: bool) -> tuple[Kind | None, Words | None]:
    """The record that is there, or why it cannot be taken; None and None where there is none."""
    if not part.path.exists():
        return None, None
    try:
        record = part.read(part.path)
    except KitError as error:
        return None, Words(f"the file that was there {error.reason}", f"已有文件不可用:{error.reason}")
    other = misfit(record.head.where, now)
    if other:
        return None, Words(f"the file that was there is of another run: {other.en}", f"已有文件不适用:{other.zh}")
    if whole and record.head.ended != COMPLETE:
        ended = record.head.ended
        return None, Words(f"the file that was there is not whole: {ended}", f"已有文件不完整:{ended}")
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


def _ended(name: str, code: int) -> str:
    return f"invoke {name} 以退出码 {code} 结束"
