"""The benchmark's record: what its schema says, and what is no record."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from reference import read_json

from env.errors import KitError, UsageError
from runtime.measure import records
from runtime.measure.bench.record import FIRST_VALIDATION, SCHEMA, Benchmark, read, schema


@pytest.fixture
def file(measured: Benchmark, tmp_path: Path) -> Path:
    records.write(tmp_path / "bench.json", measured)
    return tmp_path / "bench.json"


def test_the_schema_is_that_of_the_classes() -> None:
    command = 'python -c "from runtime.measure.bench import record; record.write_schema()"'
    assert SCHEMA.read_text(encoding="utf-8") == schema(), f"renew it: {command}"
    Draft202012Validator.check_schema(read_json(SCHEMA))


def test_records_are_as_the_schema_says(file: Path) -> None:
    validator = Draft202012Validator(read_json(SCHEMA))
    for path in (file, FIRST_VALIDATION):
        validator.validate(read_json(path))
    with pytest.raises(ValidationError):
        validator.validate(read_json(file) | {"figures": [{"quantity": "latency/total"}]})


def test_a_record_is_read_back_as_it_was(measured: Benchmark, file: Path) -> None:
    found = read(str(file))
    assert (found.figures, found.absent, found.head) == (measured.figures, measured.absent, measured.head)
    assert found.clip


def test_a_record_says_what_its_figures_mean(file: Path) -> None:
    written = read_json(file)
    assert {figure["quantity"] for figure in written["figures"]} == set(written["quantities"])
    speed = written["quantities"]["throughput/speed"]
    assert (speed["unit"], speed["better"]) == ("x", "higher")
    assert speed["name"]["zh"]


def test_the_first_validation_is_built_in() -> None:
    seed = read("seed")
    where = seed.head.where
    assert (where.silicon, where.description, where.dtype) == ("NPU", "Ascend910B4", "bfloat16")
    found = {figure.key: figure.spread for figure in seed.figures}
    assert (found["latency/total"].p50, found["latency/total"].p99) == (0.7343, 0.7389)
    assert [found[f"throughput/speed@{batch}"].mean for batch in (1, 2, 4)] == [5.75, 11.13, 20.5]
    assert found["memory/loaded"].mean == 3.93e9
    assert "Not measured by this kit" in seed.source


def older(content: Any) -> str:
    content["head"]["version"] = 0
    return json.dumps(content)


def of_another_kind(content: Any) -> str:
    content["head"]["form"] = "smoke"
    return json.dumps(content)


def without_figures(content: Any) -> str:
    del content["figures"]
    return json.dumps(content)


def with_words_for_figures(content: Any) -> str:
    content["figures"][0]["samples"] = ["fast"]
    return json.dumps(content)


def of_an_unknown_quantity(content: Any) -> str:
    content["figures"][0]["quantity"] = "latency/guess"
    return json.dumps(content)


def without_a_middle(content: Any) -> str:
    content["figures"][0]["spread"] = {}
    return json.dumps(content)


def cut_off(content: Any) -> str:
    return json.dumps(content)[:-100]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (older, "is written in version 0 of its form, this kit reads version 2"),
        (of_another_kind, "is no record of bench"),
        (without_figures, "is damaged: figures"),
        (with_words_for_figures, "is damaged: figures.0.samples.0"),
        (of_an_unknown_quantity, "nothing is known as latency/guess"),
        (without_a_middle, "has neither median nor mean"),
        (cut_off, "is no JSON file, or cut off"),
        (lambda _: "[]", "is no record of bench"),
    ],
)
def test_what_is_no_record_is_refused(damage: Callable[[Any], str], words: str, file: Path) -> None:
    file.write_text(damage(read_json(file)), encoding="utf-8")
    with pytest.raises(KitError) as refused:
        read(str(file))
    assert refused.value.subject == str(file)
    assert words in refused.value.reason


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read(str(tmp_path / "bench.json"))


def test_what_the_clip_was_may_be_unknown(measured: Benchmark) -> None:
    assert replace(measured, plan={}).clip == ""
