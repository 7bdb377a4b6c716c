"""What was measured, as tables for people."""

from collections.abc import Iterable, Iterator

from rich.markup import escape
from rich.table import Table

from runtime.measure.smoke.record import CHECKS, Check, Verdict
from runtime.measure.soak import JUDGED, Report
from runtime.measure.where import Where
from runtime.tables import Severity, table

VERDICTS = {True: Severity("pass", "green"), False: Severity("FAIL", "bold red")}


def verdicts(rows: Iterable[Verdict]) -> Table:
    """The smoke test, clip by clip."""
    shown = table("Clip", "Seconds", "Expected", "Detected", "Text", "Error", "RTF", "")
    for row in rows:
        shown.add_row(
            row.clip,
            f"{row.seconds:.2f}",
            row.expected_language or "none",
            row.language or "none",
            escape(row.text) or "(nothing)",
            f"{row.error_rate:.1%}",
            f"{row.rtf:.3f}",
            _mark(row.passed),
        )
    return shown


def checks(rows: Iterable[Check]) -> Table:
    """The smoke test beyond the clips' words."""
    shown = table("Check", "Of", "Found", "")
    for row in rows:
        shown.add_row(CHECKS[row.check].en, row.clip, escape(row.found), _mark(row.passed))
    return shown


def ran_on(where: Where) -> str:
    """On what something ran, first of all whether that is an NPU."""
    kind = {
        "NPU": "an NPU",
        "simulated NPU": "the simulated NPU, no real one",
        "CPU": "a CPU, no NPU",
        "unknown": "silicon that is not known here",
    }[where.silicon]
    whose = f"{where.url}: on" if where.url else "On"
    why = f" {where.why_not_npu}" if where.why_not_npu else ""
    engine = "" if where.engine == "transformers" else f" Engine: {where.engine_and_version}."
    return f"{whose} {kind}: {where.device} ({where.description}).{engine}{why}"


def soaked(report: Report) -> Iterator[Table | str]:
    """A soak: kinds of requests with their latencies, then failures, drift and memory."""
    shown = table("Request", "Asked", "Failed", "p50 ms", "p95 ms", "Longest ms")
    for kind, tally in report.tallies.items():
        taken = sorted(tally.taken) or [0.0]
        figures = (taken[len(taken) // 2], taken[int(0.95 * (len(taken) - 1))], taken[-1])
        failed = sum(tally.failures.values())
        shown.add_row(kind, str(len(tally.taken)), str(failed), *(f"{1000 * figure:.0f}" for figure in figures))
    yield shown
    yield from (f"{count} times {words}" for words, count in report.failures.most_common())
    yield f"{report.asked} requests in {report.seconds:.0f} s"
    drift = "too few answers to tell" if report.drift is None else f"{report.drift:.2f} times the first third's"
    yield f"Latency in the last third: {drift}"
    if report.slope is None:
        yield "Memory: too few looks to tell"
    else:
        now = report.memory[-1][1] / 2**20
        yield f"Memory: {now:.0f} MiB resident, {report.slope:+.0f} MiB an hour after the first third"
    if report.seconds < JUDGED:
        yield f"A soak of less than {JUDGED / 60:.0f} minutes judges the answers alone: caches still fill"


def _mark(passed: bool) -> str:
    mark = VERDICTS[passed]
    return f"[{mark.style}]{mark.word}"
