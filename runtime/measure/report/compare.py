"""`invoke report --compare A B`: what changed from one report to another."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from rich.table import Table
from rich.text import Text

from runtime.measure.accuracy.run import Accuracy
from runtime.measure.accuracy.score import Rate
from runtime.measure.bench import tables
from runtime.measure.report.record import Report
from runtime.measure.report.verdicts import QUESTIONS
from runtime.tables import table

NONE = "–"
BESIDE = "Error rates"


def shown(before: Report, after: Report) -> Iterator[Table | Text]:
    """Tables for a terminal: first what both are of, then what differs between them, part by part."""
    yield Text(f"Before: {_title(before)}")
    yield Text(f"After:  {_title(after)}")
    for title, one, other in (
        ("Hardware", _hardware(before), _hardware(after)),
        ("Versions", _versions(before), _versions(after)),
        ("Weights", _weights(before), _weights(after)),
        ("Settings", _settings(before), _settings(after)),
        ("Verdicts", _verdicts(before), _verdicts(after)),
        ("Smoke", _smoke(before), _smoke(after)),
    ):
        yield from _differences(title, one, other)
    yield from _figures(before, after)
    yield from _accuracies(before.accuracy, after.accuracy)


def _title(report: Report) -> str:
    ended = "" if report.head.complete else f", not complete: {report.head.ended}"
    return f"{report.head.begun}, {tables.headline(report.head.where)} · {report.head.where.host}{ended}"


def _differences(title: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Table | Text]:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not names:
        yield Text(f"\n{title}: the same")
        return
    grid = table(title, "Before", "After")
    for name in names:
        grid.add_row(*(Text(cell or NONE) for cell in (name, before.get(name, ""), after.get(name, ""))))
    yield Text()
    yield grid


def _hardware(report: Report) -> dict[str, str]:
    where, facts = report.head.where, report.facts
    return {
        "silicon": where.silicon,
        "device": where.description,
        "host": where.host,
        "system": where.system,
        "cores": str(where.cores),
        "memory": str(where.memory),
        "NPU driver": facts.driver,
        "chips": ", ".join(chip.name for chip in facts.smi.chips) if facts.smi else "",
    }


def _versions(report: Report) -> dict[str, str]:
    where, facts = report.head.where, report.facts
    own = {
        "engine": where.engine,
        "kit": where.kit,
        "commit": where.commit,
        "stack": facts.stack,
        "CANN": facts.cann,
        "image": facts.image.id,
    }
    return own | where.versions


def _weights(report: Report) -> dict[str, str]:
    where, weights = report.head.where, report.facts.weights
    named = {"model": where.model, "revision": where.revision, "number format": where.dtype}
    return named | {file.name: file.sha256 for file in weights.files}


def _settings(report: Report) -> dict[str, str]:
    return {row.variable: row.value for row in report.facts.settings}


def _verdicts(report: Report) -> dict[str, str]:
    return {QUESTIONS[one.question].en: f"{one.status}: {one.reason.en}" for one in report.verdicts}


def _smoke(report: Report) -> dict[str, str]:
    outcomes = report.smoke.outcomes if report.smoke else ()
    return {one.name: one.fault or "pass" for one in outcomes}


def _figures(before: Report, after: Report) -> Iterator[Table | Text]:
    if before.bench is None or after.bench is None:
        gone = " and ".join(name for name, one in (("before", before), ("after", after)) if one.bench is None)
        yield Text(f"\nFigures: not compared, there are none {gone}")
        return
    yield Text()
    for caution in tables.cautions(before.bench, after.bench):
        yield Text(caution)
    grid = tables.against(before.bench, after.bench)
    changed = tuple(row for row in grid.rows if row[1] != row[2])
    if changed:
        yield tables.terminal(
            replace(grid, title="Figures", columns=("", "Before", "After", "Ratio", ""), rows=changed)
        )
    same = len(grid.rows) - len(changed)
    yield Text(f"Figures: {same} the same" if same else "")
    one, other = ({figure.key for figure in report.bench.figures} for report in (before, after) if report.bench)
    for words, keys in (("before", one - other), ("after", other - one)):
        if keys:
            yield Text(f"Only {words}: {', '.join(sorted(keys))}")


def _accuracies(before: Accuracy | None, after: Accuracy | None) -> Iterator[Table | Text]:
    if before is None or after is None:
        gone = " and ".join(name for name, one in (("before", before), ("after", after)) if one is None)
        yield Text(f"\n{BESIDE}: not compared, there are none {gone}")
        return
    yield Text()
    if before.digest != after.digest or before.asked != after.asked:
        yield Text(
            f"{BESIDE} are of other data: {before.name}, {before.asked} utterances, and {after.name}, {after.asked}"
        )
    grid = table(BESIDE, "Before", "After", "")
    one, other = _rates(before), _rates(after)
    for name in {**one, **other}:
        was, became = one.get(name), other.get(name)
        grid.add_row(name, _percent(was), _percent(became), _apart(was, became) if was and became else "")
    yield grid


def _rates(record: Accuracy) -> dict[str, Rate]:
    score = record.score
    found = {f"all, {rate.unit}": rate for rate in score.overall}
    found |= {f"{rate.name or 'no language given'}, {rate.unit}": rate for rate in score.languages}
    return found


def _percent(rate: Rate | None) -> str:
    if rate is None or rate.rate is None:
        return NONE
    interval = "" if rate.low is None or rate.high is None else f" ({rate.low:.2%} to {rate.high:.2%})"
    return f"{rate.rate:.2%}{interval}"


def _apart(before: Rate, after: Rate) -> str:
    """Whether two rates differ by more than their 95 % intervals allow."""
    if before.rate is None or after.rate is None or before.rate == after.rate:
        return ""
    ends = (before.low, before.high, after.low, after.high)
    low, high, other_low, other_high = (end if end is not None else 0.0 for end in ends)
    if None in ends:
        return "too few errors to tell"
    if high < other_low:
        return "worse"
    return "better" if other_high < low else "within noise"
