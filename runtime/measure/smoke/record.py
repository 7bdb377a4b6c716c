"""What a smoke test found, and the record it is kept in: out/smoke.json."""

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.measure.quantities import Words
from runtime.measure.records import Form, Head

SMOKE = Form("smoke", 1)
FILE = "smoke.json"

# The checks beyond the clips, in the order in which they are made.
CHECKS: dict[str, Words] = {
    "warm-up": Words("first transcription", "首次转写"),
    "text": Words("format text", "text 格式"),
    "json": Words("format json", "json 格式"),
    "verbose_json": Words("format verbose_json", "verbose_json 格式"),
    "srt": Words("format srt", "srt 格式"),
    "vtt": Words("format vtt", "vtt 格式"),
    "language": Words("forced language", "强制语言"),
    "other-language": Words("another language forced", "强制为其他语言"),
    "context": Words("context", "上下文"),
    "silence": Words("silence", "静音"),
    "batch": Words("batch", "批处理"),
}


@dataclass(frozen=True)
class Verdict:
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
class Check:
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


Outcome = Verdict | Check


@dataclass(frozen=True)
class Smoke:
    """A smoke test. It has passed where it was made whole and nothing failed."""

    head: Head
    passed: bool
    verdicts: tuple[Verdict, ...]
    checks: tuple[Check, ...]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """All that was found."""
        return (*self.verdicts, *self.checks)

    @property
    def failed(self) -> Iterator[Outcome]:
        """What is not as it should be."""
        return (outcome for outcome in self.outcomes if not outcome.passed)
