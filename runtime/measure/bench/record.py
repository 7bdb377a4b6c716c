"""The benchmark's record, `bench.json`: what was measured, told so that the file can be read without the kit, too.

schema.json beside this file describes it; it is generated from these classes and changes with their version.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from env.errors import KitError, UsageError
from runtime.files import write_whole
from runtime.measure import records
from runtime.measure.metrics import QUANTITIES, Quantity, part_of
from runtime.measure.records import Form, Head, Where
from runtime.measure.statistics import Figure, FigureDifference, apart
from runtime.transcriber import Transcriber

BENCH = Form("bench", 2)
FILE = "bench.json"  # its name
SCHEMA = Path(__file__).with_name("schema.json")
FIRST_VALIDATION = Path(__file__).with_name("first_validation.json")
AGAIN = "measure again: invoke bench"
SEED = "seed"  # what stands for FIRST_VALIDATION where a baseline is asked for

FLAG = "--fail-if-slower"


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


@dataclass(frozen=True)
class Benchmark:
    """A run of the benchmark: `plan` is what was asked for, `quantities` says for readers without the kit what the
    figures' quantities mean, `absent` what could not be measured and why. `sides` are the engines that stood side
    by side, of the part `vllm`; `source` says who measured, where it was not this kit."""

    head: Head
    plan: dict[str, Any]
    quantities: dict[str, Quantity]
    figures: tuple[Figure, ...]
    absent: tuple[Absent, ...]
    sides: tuple[Where, ...] = ()
    source: str = ""

    @property
    def clip(self) -> str:
        """The name of the clip that was heard; empty where the record does not tell."""
        return str(self.plan.get("clip") or "")

    def part(self, name: str) -> list[Figure]:
        """The figures of a part of `runtime.measure.metrics`, in the order of measuring."""
        return [figure for figure in self.figures if part_of(figure.quantity) == name]


def benchmark(head: Head, plan: Plan, found: Sequence[Found], *, clip: str = "") -> Benchmark:
    """The record of what was found; `clip` is the name of the one that was heard."""
    figures = tuple(one for one in found if isinstance(one, Figure))
    absent = tuple(one for one in found if isinstance(one, Absent))
    meant = {figure.quantity: figure.meaning for figure in figures}
    sides = tuple(one for one in found if isinstance(one, Where))
    return Benchmark(head, asdict(plan) | {"clip": clip}, meant, figures, absent, sides)


def read(name: str) -> Benchmark:
    """A record from a file, or by the name `seed` the first validation's figures. Raises UsageError where there is no
    such file, KitError where it is no record of a benchmark in the version that this kit reads, or a damaged one."""
    found = records.read(FIRST_VALIDATION if name == SEED else Path(name), Benchmark, BENCH)
    for figure in found.figures:
        if figure.quantity not in QUANTITIES:
            raise KitError(name, f"is damaged: nothing is known as {figure.quantity}", AGAIN)
        if figure.spread.p50 is None and figure.spread.mean is None:
            raise KitError(name, f"is damaged: {figure.key} has neither median nor mean", AGAIN)
    return found


class _Untitled(GenerateJsonSchema):
    """Leaves out titles, which would repeat the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - as pydantic calls it
        return False


def schema() -> str:
    """The JSON Schema of the record."""
    content = TypeAdapter(Benchmark).json_schema(mode="serialization", schema_generator=_Untitled)
    head = content["$defs"]["Head"]["properties"]
    head["form"]["const"], head["version"]["const"] = BENCH.name, BENCH.version
    address = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{BENCH.name}-{BENCH.version}"}
    return json.dumps(address | content, ensure_ascii=False, indent=1) + "\n"


def write_schema() -> None:
    """Renew schema.json."""
    write_whole(SCHEMA, schema())


@dataclass(frozen=True)
class Judgement:
    """The figures that are worse by more than the tolerance and than noise, and those that would be, had they samples
    enough to tell noise from change."""

    slower: tuple[FigureDifference, ...]
    undecided: tuple[FigureDifference, ...]


def tolerance(typed: str) -> float:
    """`10%` as 0.1. Raises UsageError for anything else than a percentage of 0 to 1000."""
    if not re.fullmatch(r"\d{1,4}(\.\d+)?%", typed) or float(typed[:-1]) > 1000:
        raise UsageError(FLAG, f"{typed!r}, expected a percentage such as 10%")
    return float(typed[:-1]) / 100


def check(baseline: Benchmark, where: Where, clip: str) -> None:
    """Raises UsageError where a baseline was measured with other things, or another clip, than what runs: neither could
    be called slower."""
    differing = [(one.what.en, one.before, one.after) for one in apart(baseline.head.where, where)]
    if baseline.clip != clip:
        differing.append(("clip", baseline.clip, clip))
    if differing:
        shown = "; ".join(f"{what}: {before or 'unknown'} there, {after} here" for what, before, after in differing)
        raise UsageError(FLAG, f"the baseline was measured with something else ({shown})", "give a baseline from here")


def judge(differences: Sequence[FigureDifference], allowed: float) -> Judgement:
    """Which figures became worse by more than `allowed`, a share of the better one."""
    worse = [one for one in differences if one.setback > allowed]
    return Judgement(
        tuple(one for one in worse if one.beyond_noise), tuple(one for one in worse if one.beyond_noise is None)
    )
