"""What a smoke test found, and the record it is kept in: out/smoke.json."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from env.translation import Bilingual, translated
from runtime.measure.records import Form, Head, Where
from runtime.measure.soak import JUDGED, SoakReport
from runtime.tables import Severity, table

SMOKE = Form("smoke", 1)
FILE = "smoke.json"

# The checks beyond the clips, in the order in which they are made.
CHECKS: dict[str, Bilingual] = {
    "warm-up": translated("first transcription"),
    "text": translated("format text"),
    "json": translated("format json"),
    "verbose_json": translated("format verbose_json"),
    "srt": translated("format srt"),
    "vtt": translated("format vtt"),
    "language": translated("forced language"),
    "other-language": translated("another language forced"),
    "context": translated("context"),
    "silence": translated("silence"),
    "batch": translated("batch"),
}

VERDICTS = {True: Severity("pass", "green"), False: Severity("FAIL", "bold red")}


@dataclass(frozen=True)
class ClipVerdict:
    """What was made of a clip; expected and detected language are None where nobody speaks. `error_rate` is of
    characters for languages without spaces, else of words; `rtf` is seconds of work per second of audio; `fault` says
    why it failed, empty if it passed, and `advice` what to look at next."""

    clip: str
    seconds: float
    expected_language: str | None
    language: str | None
    expected_text: str
    text: str
    error_rate: float
    rtf: float
    fault: str = ""
    advice: str = ""

    @property
    def name(self) -> str:
        """What failures call it."""
        return self.clip

    @property
    def passed(self) -> bool:
        """Whether language and text are what was expected."""
        return not self.fault


@dataclass(frozen=True)
class SmokeCheck:
    """One of CHECKS, on a clip: what was found in a few words; `fault` and `advice` as of a verdict."""

    check: str
    clip: str
    found: str
    fault: str = ""
    advice: str = ""

    @property
    def name(self) -> str:
        """What failures call it."""
        return f"{CHECKS[self.check].en}, {self.clip}"

    @property
    def passed(self) -> bool:
        """Whether it is as it should be."""
        return not self.fault


Outcome = ClipVerdict | SmokeCheck


@dataclass(frozen=True)
class Smoke:
    """A smoke test. It has passed where it was made whole and nothing failed."""

    head: Head
    passed: bool
    verdicts: tuple[ClipVerdict, ...]
    checks: tuple[SmokeCheck, ...]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """All that was found."""
        return (*self.verdicts, *self.checks)

    @property
    def failed(self) -> Iterator[Outcome]:
        """What is not as it should be."""
        return (outcome for outcome in self.outcomes if not outcome.passed)


def verdicts(rows: Iterable[ClipVerdict]) -> Table:
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


def checks(rows: Iterable[SmokeCheck]) -> Table:
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


def soaked(report: SoakReport) -> Iterator[Table | str]:
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
