"""The benchmark: parts that each yield figures, for one record. A part's module has `measure(bench)`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from env.errors import KitError
from runtime.measure.figures import Figure
from runtime.measure.where import Where
from runtime.transcriber import Transcriber


@dataclass(frozen=True)
class Plan:
    """What is measured, and how much. `clip` None is the official 4.2 s clip, or a bundled one of about its length;
    `batches` are utterances, `lengths` seconds, `minutes` minutes of audio, `clients` and `rates` (requests per second)
    arrivals at a server; `url` is a server that runs already, empty for one started for this."""

    parts: tuple[str, ...]
    runs: int = 20
    warmups: int = 3
    clip: Path | None = None
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    lengths: tuple[float, ...] = (5, 10, 30, 60, 120)
    minutes: tuple[float, ...] = (1, 10, 60)
    clients: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    rates: tuple[float, ...] = ()
    requests: int = 64
    url: str = ""


@dataclass(frozen=True)
class Absent:
    """What was not measured, a part's name or `part@place`, and why."""

    what: str
    reason: str
    advice: str = ""


Found = Figure | Absent | Where  # Where: what else was measured with than the run's own model


@dataclass(frozen=True)
class Bench:
    """What a part needs: the loaded model (None where only a server is asked, by the plan's `url`), the plan, and whom
    to tell how far it is (a few words, in English)."""

    loaded: Transcriber | None
    plan: Plan
    tell: Callable[[str], None] = field(default=lambda _: None)

    @property
    def transcriber(self) -> Transcriber:
        """The loaded model. Raises KitError where there is none."""
        if self.loaded is None:
            raise KitError("--url", "this is measured in this process only, not over HTTP", "measure without --url")
        return self.loaded
