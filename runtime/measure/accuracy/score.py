"""From what was said and what was heard to rates: by language, length and speaker, with their confidence intervals.

The rate of a group is the sum of its errors over the sum of what was said in it. Words and characters are never added.
Silence, a reference of nothing, is counted on its own: there is nothing to divide by. An utterance that failed is in
no rate, but in `with_failed` it counts as if all of it had been missed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.measure.accuracy.dataset import Item
from runtime.measure.accuracy.journal import UtteranceOutcome
from runtime.measure.error_rate import Counts, Step, Unit, count

LENGTHS = (5.0, 10.0, 30.0, 60.0)  # seconds, where one group of lengths ends and the next begins
CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 5  # of the bootstrap, so that the same outcomes have the same interval
# Utterances of one speaker are alike, so whole speakers are drawn; of fewer than these too few sets could be drawn.
FEWEST_SPEAKERS = 10
DRAWN_AT_ONCE = 4_000_000  # 32 MB of indices

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Heard:
    """An utterance and what became of it; `counts` against nothing where it failed."""

    item: Item
    outcome: UtteranceOutcome
    counts: Counts

    @property
    def failed(self) -> bool:
        """Whether it could not be transcribed."""
        return bool(self.outcome.failure)


@dataclass(frozen=True)
class Rate:
    """A group of utterances, counted in one unit. `rate` is errors over `length`, the units in the references, without
    the `failed` utterances; `with_failed` has these as missed. Shares from 0, None where there is nothing to divide by.
    `low` to `high` is the 95 % confidence interval, of `resampled` speakers or utterances; None without an error."""

    name: str
    unit: Unit
    utterances: int
    failed: int
    exact: int
    length: int
    substitutions: int
    deletions: int
    insertions: int
    rate: float | None
    with_failed: float | None
    low: float | None = None
    high: float | None = None
    resampled: str = ""


@dataclass(frozen=True)
class Identified:
    """How often the language that is spoken was detected. `confusion` has said, heard (empty: none) and how often."""

    utterances: int
    right: int
    confusion: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Bad:
    """An utterance with errors; `reference` and `text` as they were given, `steps` as they were compared."""

    name: str
    language: str
    heard: str
    speaker: str
    seconds: float
    reference: str
    text: str
    unit: Unit
    errors: int
    length: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class AccuracyScore:
    """All figures. `overall` has words and characters apart; `lengths` are named by the seconds where they begin;
    `silences` are references of nothing, `silent` those of them where nothing was heard. `truncated` and `repeated`
    count utterances."""

    overall: tuple[Rate, ...]
    languages: tuple[Rate, ...]
    lengths: tuple[Rate, ...]
    speakers: tuple[Rate, ...]
    identified: Identified | None
    silences: int
    silent: int
    truncated: int
    repeated: int
    seconds: float
    worst: tuple[Bad, ...]


def compared(items: Iterable[Item], outcomes: Mapping[str, UtteranceOutcome], *, plain: bool) -> list[Heard]:
    """Each item that has an outcome, aligned with it; texts are not normalised if `plain`."""
    found = []
    for item in items:
        if (outcome := outcomes.get(item.name)) is not None:
            found.append(Heard(item, outcome, count(item.text, outcome.text, item.language, plain=plain)))
    return found


def scored(heard: Sequence[Heard], *, forced: bool = False, worst: int = 0) -> AccuracyScore:
    """The figures; where languages were `forced`, none was identified. `worst` is how many bad ones to list."""
    spoken = [each for each in heard if each.counts.length]
    silence = [each for each in heard if not each.counts.length and not each.failed]
    return AccuracyScore(
        overall=_rates(spoken, lambda _: ""),
        languages=_rates(spoken, lambda each: each.item.language or ""),
        lengths=_rates([each for each in spoken if not each.failed], lambda each: _begin(each.outcome.seconds)),
        speakers=_rates([each for each in spoken if each.item.speaker], lambda each: each.item.speaker, interval=False),
        identified=None if forced else _identified(spoken),
        silences=len(silence),
        silent=sum(not each.counts.errors for each in silence),
        truncated=sum(each.outcome.truncated for each in heard),
        repeated=sum(bool(each.outcome.repeated) for each in heard),
        seconds=round(sum(each.outcome.seconds for each in heard), 3),
        worst=_worst(heard, worst),
    )


def confidence(errors: Floats, lengths: Floats) -> tuple[float, float]:
    """The interval of sum(errors) / sum(lengths), both of shape (n,), by the percentile bootstrap over the n."""
    rng, size = np.random.default_rng(SEED), len(errors)
    at_once = max(1, DRAWN_AT_ONCE // size)
    rates = []
    for done in range(0, RESAMPLES, at_once):
        drawn = rng.integers(size, size=(min(at_once, RESAMPLES - done), size))
        rates.append(errors[drawn].sum(axis=1) / lengths[drawn].sum(axis=1))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(rates), [tail, 100 - tail])
    return float(low), float(high)


def _rates(heard: Iterable[Heard], name: Callable[[Heard], str | float], *, interval: bool = True) -> tuple[Rate, ...]:
    groups: defaultdict[tuple[Unit, str | float], list[Heard]] = defaultdict(list)
    for each in heard:
        groups[each.counts.unit, name(each)].append(each)
    return tuple(
        _rate(name if isinstance(name, str) else f"{name:g}", unit, groups[unit, name], interval=interval)
        for unit, name in sorted(groups, key=lambda key: (key[1], key[0] == "characters"))
    )


def _rate(name: str, unit: Unit, heard: Sequence[Heard], *, interval: bool) -> Rate:
    done = [each for each in heard if not each.failed]
    errors, length = sum(each.counts.errors for each in done), sum(each.counts.length for each in done)
    missed = sum(each.counts.length for each in heard) - length
    drawn, low, high = _confidence(done) if interval and errors and len(done) > 1 else ("", None, None)
    return Rate(
        name,
        unit,
        utterances=len(heard),
        failed=len(heard) - len(done),
        exact=sum(not each.counts.errors for each in done),
        length=length,
        substitutions=sum(each.counts.substitutions for each in done),
        deletions=sum(each.counts.deletions for each in done),
        insertions=sum(each.counts.insertions for each in done),
        rate=errors / length if length else None,
        with_failed=(errors + missed) / (length + missed) if length + missed else None,
        low=low,
        high=high,
        resampled=drawn,
    )


def _confidence(heard: Sequence[Heard]) -> tuple[str, float, float]:
    """What was resampled, and the interval."""
    speakers = {each.item.speaker for each in heard}
    by_speaker = len(speakers) >= FEWEST_SPEAKERS and "" not in speakers
    sums: defaultdict[Hashable, list[int]] = defaultdict(lambda: [0, 0])
    for number, each in enumerate(heard):
        block = sums[each.item.speaker if by_speaker else number]
        block[0] += each.counts.errors
        block[1] += each.counts.length
    errors, lengths = np.array(list(sums.values()), dtype=np.float64).T
    return "speakers" if by_speaker else "utterances", *confidence(errors, lengths)


def _begin(seconds: float) -> float:
    """Where the group of lengths begins that so many seconds are in."""
    return max((edge for edge in LENGTHS if seconds > edge), default=0.0)


def _identified(spoken: Iterable[Heard]) -> Identified | None:
    pairs = Counter(
        (each.item.language, each.outcome.language or "") for each in spoken if each.item.language and not each.failed
    )
    if not pairs:
        return None
    right = sum(times for (said, detected), times in pairs.items() if said == detected)
    confusion = tuple((said, detected, times) for (said, detected), times in sorted(pairs.items()))
    return Identified(pairs.total(), right, confusion)


def _worst(heard: Iterable[Heard], most: int) -> tuple[Bad, ...]:
    """Those with the most errors, the higher rate first where they have as many."""
    bad = [each for each in heard if each.counts.errors and not each.failed]
    bad.sort(key=lambda each: (-each.counts.errors, -each.counts.rate, each.item.name))
    return tuple(
        Bad(
            name=each.item.name,
            language=each.item.language or "",
            heard=each.outcome.language or "",
            speaker=each.item.speaker,
            seconds=each.outcome.seconds,
            reference=each.item.text,
            text=each.outcome.text,
            unit=each.counts.unit,
            errors=each.counts.errors,
            length=each.counts.length,
            steps=each.counts.steps,
        )
        for each in bad[:most]
    )
