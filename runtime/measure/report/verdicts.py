"""What the report concludes: the first questions of somebody who takes over, answered from what was measured."""

import json
from collections.abc import Callable, Sequence

from env.settings import DEMO
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.measure.accuracy.run import Accuracy
from runtime.measure.accuracy.score import Rate
from runtime.measure.bench.in_process import OFFICIAL
from runtime.measure.bench.record import SEED, judge, read
from runtime.measure.metrics import Bilingual, amount, part_of, share, times
from runtime.measure.report.record import Name, Report, ReportVerdict, Status
from runtime.measure.statistics import apart, compare

SLOWER = 0.10  # what is more than a tenth slower than the first validation, and beyond noise, is slower
# Error rates are stated for texts that others normalise in other ways: some tenths of a per cent say little.
TOLERATED = 0.005
KEPT = 0.01  # of what the loaded model holds; more than that after unloading was not given back
TOLD = 3  # of many, how many are named
SEMICOLON = "\uff1b"

QUESTIONS = {
    "smoke": Bilingual("It transcribes", "能正确转写"),
    "accuracy": Bilingual("It is accurate", "精度达标"),
    "speed": Bilingual("It is as fast as the first validation", "不慢于首次验证"),
    "resources": Bilingual("It gives back what it took", "资源已释放"),
    "stack": Bilingual("The packages are the pinned ones", "软件包与锁定版本一致"),
    "weights": Bilingual("The weights are the recorded ones", "权重与记录一致"),
    "host": Bilingual("The host is fit", "主机满足要求"),
}


Answer = tuple[Status, Bilingual]


def judged(report: Report) -> tuple[ReportVerdict, ...]:
    """A verdict on every question."""
    return tuple(ReportVerdict(name, *JUDGES[name](report)) for name in QUESTIONS)


def _smoke(report: Report) -> Answer:
    record = report.smoke
    if record is None:
        return _missing(report, "smoke")
    failed = [one.name for one in record.failed]
    if failed:
        return "fail", Bilingual(f"failed: {_some(failed)}", f"不通过:{_some(failed)}")
    if not record.passed:
        return "fail", Bilingual(f"not complete: {record.head.ended}", f"未完成:{record.head.ended}")
    clips, checks = len(record.verdicts), len(record.checks)
    return "pass", Bilingual(f"{clips} clips and {checks} checks passed", f"{clips} 条音频、{checks} 项检查全部通过")


def _accuracy(report: Report) -> Answer:
    record = report.accuracy
    if record is None:
        return _missing(report, "accuracy")
    shown = "; ".join(f"{rate.name or rate.unit} {_interval(rate)}" for rate in _rates(record))
    if not record.head.complete:
        return "not run", Bilingual(
            f"not complete: {record.head.ended}; {shown}", f"未完成:{record.head.ended};{shown}"
        )
    stated = _card() if record.layout == DEMO else _stated(record)
    pairs = [(rate, stated[rate.name]) for rate in _rates(record) if rate.name in stated and rate.rate is not None]
    if not pairs:
        reason = f"nobody states a figure for {record.name} to judge by; measured: {shown}"
        return "not run", Bilingual(reason, f"{record.name} 没有可供对照的公布数据;实测:{shown}")
    above = [rate for rate, most in pairs if (rate.rate if rate.low is None else rate.low) > most + TOLERATED]  # type: ignore[operator]
    english = "; ".join(f"{rate.name or rate.unit} {_interval(rate)}, stated {most:.2%}" for rate, most in pairs)
    chinese = "、".join(f"{rate.name or rate.unit} 实测 {_interval(rate)},公布 {most:.2%}" for rate, most in pairs)
    return ("fail" if above else "pass"), Bilingual(f"{record.name}: {english}", f"数据集 {record.name} 中:{chinese}")


def _speed(report: Report) -> Answer:
    if report.bench is None:
        return _missing(report, "bench")
    first = read(SEED)
    other = apart(first.head.where, report.bench.head.where)
    if other:
        en = "; ".join(f"{one.what.en} {one.before} there, {one.after} here" for one in other)
        zh = SEMICOLON.join(f"{one.what.zh}:当时 {one.before},本次 {one.after}" for one in other)
        return "not run", Bilingual(f"not comparable: {en}", f"不可比:{zh}")
    clip = report.bench.plan.get("clip")
    if clip and not str(clip).endswith(OFFICIAL):
        return "not run", Bilingual(
            f"not comparable: measured with {clip}, not {OFFICIAL}", f"不可比:所用音频为 {clip}"
        )
    differences = [
        one
        for one in compare(first.figures, report.bench.figures)
        if part_of(one.after.quantity) in ("latency", "throughput")
    ]
    if not differences:
        return "not run", Bilingual("neither latency nor throughput was measured", "未测量延迟和吞吐")
    found = judge(differences, SLOWER)
    if found.slower:
        slower = _some([f"{one.key} {times(one.ratio)}" for one in found.slower])
        return "fail", Bilingual(f"slower by more than 10 %: {slower}", f"慢 10% 以上:{slower}")
    if found.undecided:
        few = _some([one.key for one in found.undecided])
        return "not run", Bilingual(f"too few samples to tell: {few}", f"样本过少,无法判断:{few}")
    compared = f"{len(differences)}"
    return "pass", Bilingual(f"{compared} figures are within 10 % or better", f"{compared} 项指标相差不超过 10% 或更好")


def _resources(report: Report) -> Answer:
    left = [str(process) for source in report.sources for process in source.left]
    if left:
        ids = ", ".join(left)
        return "fail", Bilingual(
            f"processes that have not ended: {ids} → ps -p {ids}", f"仍有进程未结束:{ids} → ps -p {ids}"
        )
    if not report.measured:
        return "not run", Bilingual("nothing was measured", "未进行任何测量")
    ended = Bilingual("every process has ended", "所有进程均已结束")
    held = {figure.quantity: figure.spread.middle for figure in report.bench.part("memory")} if report.bench else {}
    loaded, after = held.get("memory/loaded"), held.get("memory/unloaded")
    if report.head.where.silicon == "CPU":
        return "pass", Bilingual(
            f"{ended.en}, and with it its memory; no device was used", f"{ended.zh},内存随之释放;未使用设备"
        )
    if loaded is None or after is None:
        return "not run", Bilingual("memory after unloading was not measured", "未测量卸载后的显存")
    more = max(after - held.get("memory/before", 0.0), 0.0)
    words = Bilingual(
        f"{ended.en}; of {amount(loaded, 'bytes')} on the device, {amount(more, 'bytes')} were left after unloading",
        f"{ended.zh};设备上的 {amount(loaded, 'bytes')} 在卸载后剩余 {amount(more, 'bytes')}",
    )
    return ("pass" if more <= KEPT * loaded else "fail"), words


def _stack(report: Report) -> Answer:
    wrong = [
        f"{row.name} {row.installed or '–'} ({row.pinned or '–'})"
        for row in report.facts.packages
        if row.severity == "matters"
    ]
    other = [row.name for row in report.facts.packages if row.severity == "harmless"]
    name = report.facts.stack
    if wrong:
        advice = f" → invoke versions --stack {name}"
        return "fail", Bilingual(f"not as pinned: {_some(wrong)}{advice}", f"与锁定版本不符:{_some(wrong)}{advice}")
    count = len(report.facts.packages)
    more = f" ({len(other)} harmless differences: {_some(other)})" if other else ""
    more_zh = f"({len(other)} 项无碍的差异:{_some(other)})" if other else ""
    return "pass", Bilingual(f"all {count} of the stack {name}{more}", f"软件栈 {name} 的 {count} 项全部一致{more_zh}")


def _weights(report: Report) -> Answer:
    if report.facts.weights.model == DEMO:
        return "not run", Bilingual("the embedded demo model: no weights were fetched", "内置演示模型,未下载权重")
    found = next((one for one in report.facts.findings if one.code == "ASR-D30"), None)
    if found is None:
        return "not run", Bilingual("not examined", "未检查")
    return ("pass" if found.status == "pass" else "fail"), Bilingual(found.evidence, found.evidence)


def _host(report: Report) -> Answer:
    codes = {
        status: [f"{one.code} {one.title}" for one in report.facts.findings if one.status == status]
        for status in ("fail", "warn")
    }
    if codes["fail"]:
        shown = _some(codes["fail"])
        return "fail", Bilingual(f"invoke doctor: {shown}", f"invoke doctor 不通过:{shown}")
    count, warned = len(report.facts.findings), len(codes["warn"])
    return "pass", Bilingual(
        f"{count} checks of invoke doctor, warnings: {warned}", f"invoke doctor 共 {count} 项,警告 {warned} 项"
    )


def _missing(report: Report, name: Name) -> Answer:
    source = report.source(name)
    advice = f" → {source.advice}" if source.advice else ""
    english = "; ".join(note.en for note in source.notes) or "not measured"
    chinese = SEMICOLON.join(note.zh for note in source.notes) or "未测量"
    return "not run", Bilingual(english + advice, chinese + advice)


def _rates(record: Accuracy) -> Sequence[Rate]:
    """By language, where those are given."""
    return record.score.languages if any(rate.name for rate in record.score.languages) else record.score.overall


def _stated(record: Accuracy) -> dict[str, float]:
    """The published rates of this model, for the one language that such sets have."""
    model = record.head.where.model.rstrip("/").rpartition("/")[2]
    rates = [one.rate for one in record.published if one.model == model]
    return {rate.name: rates[0] for rate in _rates(record)} if rates else {}


def _card() -> dict[str, float]:
    """The demo model's rates by language, as its card has them."""
    found: dict[str, float] = json.loads((DEMO_CHECKPOINT / "score.json").read_text(encoding="utf-8"))["error_rates"]
    return found


def _interval(rate: Rate) -> str:
    if rate.rate is None:
        return "–"
    between = "" if rate.low is None or rate.high is None else f" ({share(rate.low)}–{share(rate.high)})"
    return f"{rate.rate:.2%}{between}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - TOLD
    return ", ".join(names[:TOLD]) + (f" (+{more})" if more > 0 else "")


JUDGES: dict[str, Callable[[Report], Answer]] = {
    "smoke": _smoke,
    "accuracy": _accuracy,
    "speed": _speed,
    "resources": _resources,
    "stack": _stack,
    "weights": _weights,
    "host": _host,
}
