"""A benchmark as it was typed: what to measure, what to compare it with and where to keep it.

What is wrong is refused here, before anything is loaded.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from env.errors import KitError, UsageError
from env.settings import Settings
from runtime.files import make_private
from runtime.measure.bench import Plan, judging
from runtime.measure.bench.record import FILE, Benchmark, read
from runtime.measure.bench.run import TABLE

FULL = Plan(parts=tuple(TABLE))
# About a minute on a laptop, with the demo model: for a look, and for CI. Without the parts that load other engines.
QUICK = replace(
    FULL,
    parts=tuple(part for part in TABLE if part not in ("engines", "vllm", "host")),
    runs=5,
    warmups=1,
    batches=(1, 2, 4),
    lengths=(5.0, 10.0),
    minutes=(1.0,),
    clients=(1, 4),
    requests=16,
)

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Order:
    """What to measure, the directory that the results go to, what to print beside them, and by how much they may be
    worse than that, a share; None: by any amount."""

    plan: Plan
    directory: Path
    baseline: Benchmark | None
    allowed: float | None

    @property
    def record(self) -> Path:
        """The record's file."""
        return self.directory / FILE


def plan(typed: Mapping[str, str], settings: Settings, *, quick: bool = False) -> Plan:
    """The plan from flags by their names, of which empty ones leave what a full or a quick plan has. Raises UsageError
    naming flag, value and what was expected."""
    given = {name: value.strip() for name, value in typed.items() if value}
    chosen: dict[str, Any] = {name: READERS[name](f"--{name}", value, settings) for name, value in given.items()}
    return replace(QUICK if quick else FULL, **chosen)


def order(plan: Plan, directory: Path, *, baseline: str, fail_if_slower: str) -> Order:
    """The plan with what `--baseline` and `--fail-if-slower` name, empty for nothing, and a directory that is there.
    Raises UsageError."""
    if fail_if_slower and not baseline:
        raise UsageError(judging.FLAG, "needs something to compare with", "add --baseline FILE, or --baseline seed")
    allowed = judging.tolerance(fail_if_slower) if fail_if_slower else None
    try:
        before = read(baseline) if baseline else None
    except KitError as error:
        raise UsageError("--baseline", f"{error.subject}: {error.reason}", error.advice) from None
    try:
        make_private(directory)
    except OSError as error:
        raise UsageError("--output", f"{directory} cannot be made: {error.strerror}") from None
    if not os.access(directory, os.W_OK):
        raise UsageError("--output", f"{directory} cannot be written to")
    return Order(plan, directory, before, allowed)


def _parts(flag: str, value: str, _: Settings) -> tuple[str, ...]:
    asked = _words(flag, value)
    for name in asked:
        if name not in TABLE:
            raise UsageError(flag, f"there is no part {name!r}, choose from: {', '.join(TABLE)}")
    return tuple(name for name in TABLE if name in asked)


def _clip(flag: str, value: str, settings: Settings) -> Path:
    from runtime import audio
    from runtime.transcriber import limits

    path = Path(value)
    if not path.is_file():
        raise UsageError(flag, f"{value}: {'is a directory' if path.is_dir() else 'no such file'}, expected audio")
    try:
        audio.load(path, limits=limits(settings))
    except KitError as error:
        raise UsageError(flag, str(error)) from None
    return path


def _url(_: str, value: str, __: Settings) -> str:
    from runtime.measure.remote import Remote

    with Remote(value) as server:  # which refuses what is no server's address
        return server.url


def _whole(least: int, most: int) -> Callable[[str, str, Settings], int]:
    return lambda flag, value, _: _number(flag, value, int, least, most)


def _wholes(most: int) -> Callable[[str, str, Settings], tuple[int, ...]]:
    return lambda flag, value, _: _numbers(flag, value, int, 1, most)


def _amounts(least: float, most: float) -> Callable[[str, str, Settings], tuple[float, ...]]:
    return lambda flag, value, _: _numbers(flag, value, float, least, most)


def _numbers(flag: str, value: str, kind: type[Number], least: float, most: float) -> tuple[Number, ...]:
    """Numbers in order, each once."""
    return tuple(sorted({_number(flag, word, kind, least, most) for word in _words(flag, value)}))


def _number(flag: str, value: str, kind: type[Number], least: float, most: float) -> Number:
    try:
        number = kind(value)
    except ValueError:
        number = kind(-1)
    if not (math.isfinite(number) and least <= number <= most):
        what = "a whole number" if kind is int else "a number"
        raise UsageError(flag, f"{value!r}, expected {what} of {least:g} to {most:g}")
    return number


def _words(flag: str, value: str) -> list[str]:
    words = [word.strip() for word in value.split(",")]
    if not all(words):
        raise UsageError(flag, f"{value!r} has an empty place, expected values with commas between them")
    return words


# By the names of the plan's fields, which are those of the flags.
READERS: dict[str, Callable[[str, str, Settings], object]] = {
    "parts": _parts,
    "runs": _whole(1, 100_000),
    "warmups": _whole(0, 1000),
    "clip": _clip,
    "batches": _wholes(4096),
    "lengths": _amounts(0.5, 14_400),
    "minutes": _amounts(0.1, 240),
    "clients": _wholes(1024),
    "rates": _amounts(0.01, 1000),
    "requests": _whole(1, 100_000),
    "url": _url,
}
