"""Whether a benchmark is slower than another, for CI: by more than a tolerance, and by more than noise."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from env.errors import UsageError
from runtime.measure.bench.record import Benchmark
from runtime.measure.comparing import Difference, apart
from runtime.measure.where import Where

FLAG = "--fail-if-slower"


@dataclass(frozen=True)
class Judgement:
    """The figures that are worse by more than the tolerance and than noise, and those that would be, had they samples
    enough to tell noise from change."""

    slower: tuple[Difference, ...]
    undecided: tuple[Difference, ...]


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


def judge(differences: Sequence[Difference], allowed: float) -> Judgement:
    """Which figures became worse by more than `allowed`, a share of the better one."""
    worse = [one for one in differences if one.setback > allowed]
    return Judgement(
        tuple(one for one in worse if one.beyond_noise), tuple(one for one in worse if one.beyond_noise is None)
    )
