"""The benchmark's record, `bench.json`: what was measured, told so that the file can be read without the kit, too.

schema.json beside this file describes it; it is generated from these classes and changes with their version.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from env.errors import KitError
from runtime.files import write_whole
from runtime.measure import records
from runtime.measure.bench import Absent, Found, Plan
from runtime.measure.figures import Figure
from runtime.measure.quantities import QUANTITIES, Quantity, part_of
from runtime.measure.records import Form, Head
from runtime.measure.where import Where

BENCH = Form("bench", 2)
FILE = "bench.json"  # its name
SCHEMA = Path(__file__).with_name("schema.json")
FIRST_VALIDATION = Path(__file__).with_name("first_validation.json")
AGAIN = "measure again: invoke bench"
SEED = "seed"  # what stands for FIRST_VALIDATION where a baseline is asked for


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
        """The figures of a part of `runtime.measure.quantities`, in the order of measuring."""
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
