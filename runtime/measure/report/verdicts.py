"""What the report concludes: the first questions of somebody who takes over, answered from what was measured."""

import json
from collections.abc import Callable, Iterable, Sequence

from env.settings import DEMO
from env.translation import Bilingual, translated
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.measure.accuracy.run import Accuracy
from runtime.measure.accuracy.score import Rate
from runtime.measure.bench.in_process import OFFICIAL
from runtime.measure.bench.record import SEED, judge, read
from runtime.measure.metrics import amount, part_of, share, times
from runtime.measure.report.record import Name, Report, ReportVerdict, Status
from runtime.measure.statistics import apart, compare

SLOWER = 0.10  # what is more than a tenth slower than the first validation, and beyond noise, is slower
# Error rates are stated for texts that others normalise in other ways: some tenths of a per cent say little.
TOLERATED = 0.005
KEPT = 0.01  # of what the loaded model holds; more than that after unloading was not given back
TOLD = 3  # of many, how many are named
SEMICOLON = "\uff1b"

QUESTIONS = {
    "smoke": translated("It transcribes"),
    "accuracy": translated("It is accurate"),
    "speed": translated("It is as fast as the first validation"),
    "resources": translated("It gives back what it took"),
    "stack": translated("The packages are the pinned ones"),
    "weights": translated("The weights are the recorded ones"),
    "host": translated("The host is fit"),
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
        return "fail", translated("failed: {some}", some=_some(failed))
    if not record.passed:
        return "fail", translated("not complete: {ended}", ended=record.head.ended)
    clips, checks = len(record.verdicts), len(record.checks)
    return "pass", translated("{clips} clips and {checks} checks passed", clips=clips, checks=checks)


def _accuracy(report: Report) -> Answer:
    record = report.accuracy
    if record is None:
        return _missing(report, "accuracy")
    shown = "; ".join(f"{rate.name or rate.unit} {_interval(rate)}" for rate in _rates(record))
    if not record.head.complete:
        return "not run", translated("not complete: {ended}; {shown}", ended=record.head.ended, shown=shown)
    stated = _card() if record.layout == DEMO else _stated(record)
    pairs = [(rate, stated[rate.name]) for rate in _rates(record) if rate.name in stated and rate.rate is not None]
    if not pairs:
        return "not run", translated(
            "nobody states a figure for {name} to judge by; measured: {shown}", name=record.name, shown=shown
        )
    above = [rate for rate, most in pairs if (rate.rate if rate.low is None else rate.low) > most + TOLERATED]  # type: ignore[operator]
    rates = _listed(
        translated(
            "{rate} {measured}, stated {stated}",
            rate=rate.name or rate.unit,
            measured=_interval(rate),
            stated=f"{most:.2%}",
        )
        for rate, most in pairs
    )
    return ("fail" if above else "pass"), translated("{name}: {rates}", name=record.name, rates=rates)


def _speed(report: Report) -> Answer:
    if report.bench is None:
        return _missing(report, "bench")
    first = read(SEED)
    other = apart(first.head.where, report.bench.head.where)
    if other:
        listed = _listed(
            translated("{what} {before} there, {after} here", what=one.what, before=one.before, after=one.after)
            for one in other
        )
        return "not run", translated("not comparable: {differences}", differences=listed)
    clip = report.bench.plan.get("clip")
    if clip and not str(clip).endswith(OFFICIAL):
        return "not run", translated(
            "not comparable: measured with {clip}, not {official}", clip=clip, official=OFFICIAL
        )
    differences = [
        one
        for one in compare(first.figures, report.bench.figures)
        if part_of(one.after.quantity) in ("latency", "throughput")
    ]
    if not differences:
        return "not run", translated("neither latency nor throughput was measured")
    found = judge(differences, SLOWER)
    if found.slower:
        slower = _some([f"{one.key} {times(one.ratio)}" for one in found.slower])
        return "fail", translated("slower by more than 10 %: {slower}", slower=slower)
    if found.undecided:
        few = _some([one.key for one in found.undecided])
        return "not run", translated("too few samples to tell: {few}", few=few)
    compared = f"{len(differences)}"
    return "pass", translated("{compared} figures are within 10 % or better", compared=compared)


def _resources(report: Report) -> Answer:
    left = [str(process) for source in report.sources for process in source.left]
    if left:
        ids = ", ".join(left)
        return "fail", translated("processes that have not ended: {ids} → ps -p {ids}", ids=ids)
    if not report.measured:
        return "not run", translated("nothing was measured")
    ended = translated("every process has ended")
    held = {figure.quantity: figure.spread.middle for figure in report.bench.part("memory")} if report.bench else {}
    loaded, after = held.get("memory/loaded"), held.get("memory/unloaded")
    if report.head.where.silicon == "CPU":
        return "pass", translated("{ended}, and with it its memory; no device was used", ended=ended)
    if loaded is None or after is None:
        return "not run", translated("memory after unloading was not measured")
    more = max(after - held.get("memory/before", 0.0), 0.0)
    words = translated(
        "{ended}; of {loaded} on the device, {more} were left after unloading",
        ended=ended,
        loaded=amount(loaded, "bytes"),
        more=amount(more, "bytes"),
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
        return "fail", translated("not as pinned: {some}{advice}", some=_some(wrong), advice=advice)
    count = len(report.facts.packages)
    if not other:
        return "pass", translated("all {count} of the stack {name}", count=count, name=name)
    return "pass", translated(
        "all {count} of the stack {name} ({harmless} harmless differences: {packages})",
        count=count,
        name=name,
        harmless=len(other),
        packages=_some(other),
    )


def _weights(report: Report) -> Answer:
    if report.facts.weights.model == DEMO:
        return "not run", translated("the embedded demo model: no weights were fetched")
    found = next((one for one in report.facts.findings if one.code == "ASR-D30"), None)
    if found is None:
        return "not run", translated("not examined")
    return ("pass" if found.status == "pass" else "fail"), Bilingual(found.evidence, found.evidence)


def _host(report: Report) -> Answer:
    codes = {
        status: [f"{one.code} {one.title}" for one in report.facts.findings if one.status == status]
        for status in ("fail", "warn")
    }
    if codes["fail"]:
        shown = _some(codes["fail"])
        return "fail", translated("invoke doctor: {shown}", shown=shown)
    count, warned = len(report.facts.findings), len(codes["warn"])
    return "pass", translated("{count} checks of invoke doctor, warnings: {warned}", count=count, warned=warned)


def _missing(report: Report, name: Name) -> Answer:
    source = report.source(name)
    advice = f" → {source.advice}" if source.advice else ""
    reasons = _listed(source.notes) if source.notes else translated("not measured")
    return "not run", Bilingual(reasons.en + advice, reasons.zh + advice)


def _listed(texts: Iterable[Bilingual]) -> Bilingual:
    texts = list(texts)
    return Bilingual("; ".join(text.en for text in texts), SEMICOLON.join(text.zh for text in texts))


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
