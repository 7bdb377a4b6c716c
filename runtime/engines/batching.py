"""Which utterances are decoded together, and when: those that wait, in turns of those who handed them over.

Nothing here decodes, waits or locks; times are of any clock that never goes back, in seconds.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

ALIKE = 2.0  # times the length of the utterance whose turn it is: what is padded to so much wastes half of it at most


@dataclass(frozen=True)
class BatchLimits:
    """The most utterances and seconds of audio in a batch, each utterance counted as long as the longest of them, and
    how many seconds a lone utterance waits for company."""

    together: int
    padded_seconds: float = math.inf
    wait_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class QueueItem(Generic[Item]):
    """A place in the queue: for what, for how much audio, taken when."""

    item: Item
    seconds: float
    since: float


class Queue(Generic[Item]):
    """Utterances that wait, by owner: those handed over together have one.

    Owners take turns. Whose turn it is puts its oldest utterance into the next batch and goes to the end of the row,
    where newcomers go too; so an owner's oldest utterance waits for no more batches than there are owners. The rest of
    the batch is company, see `companions`, and costs nobody a turn.
    """

    def __init__(self, bounds: BatchLimits) -> None:
        self.bounds = bounds
        self._owners: list[list[QueueItem[Item]]] = []  # each with one or more, the oldest first; the next turn first

    def __len__(self) -> int:
        return sum(map(len, self._owners))

    def __iter__(self) -> Iterator[Item]:
        return (place.item for owner in self._owners for place in owner)

    def add(self, places: Sequence[QueueItem[Item]]) -> None:
        """Queue what one owner hands over at once."""
        if places:
            self._owners.append(list(places))

    def remove(self, item: Item) -> None:
        """Take an item out, if it is there."""
        self._keep([place for owner in self._owners for place in owner if place.item == item])

    def due(self) -> float:
        """When the next batch may be taken: at once (-inf) unless all utterances came alone and there is room for more;
        then when the first of them has waited long enough. Never (inf) if none waits."""
        if not self._owners:
            return math.inf
        if any(len(owner) > 1 for owner in self._owners) or is_full(self._choose(), self.bounds):
            return -math.inf
        return min(owner[0].since for owner in self._owners) + self.bounds.wait_seconds

    def take(self) -> list[Item]:
        """The next batch, the utterance whose turn it is first; empty if none waits."""
        if not self._owners:
            return []
        batch = self._choose()
        self._owners.append(self._owners.pop(0))
        self._keep(batch)
        return [place.item for place in batch]

    def _choose(self) -> list[QueueItem[Item]]:
        anchor = self._owners[0][0]
        return [anchor, *batch_mates(anchor, self._owners, self.bounds)]

    def _keep(self, without: Sequence[QueueItem[Item]]) -> None:
        gone = set(without)
        left = [[place for place in owner if place not in gone] for owner in self._owners]
        self._owners = [owner for owner in left if owner]


def batch_mates(
    anchor: QueueItem[Item], owners: Sequence[Sequence[QueueItem[Item]]], bounds: BatchLimits
) -> list[QueueItem[Item]]:
    """Those that are decoded with `anchor`, the oldest of one of the owners, as many as `bounds` allow.

    First those of like length, one of each owner, then a second of each, and so on, always the nearest in length; then
    all others, by length. Even those are worth a free place: a step that decodes one token of each row costs a large
    model on an NPU hardly more for many rows than for one, and a row's answer is given as soon as it ends.
    """
    if bounds.together == 1:
        return []
    ranked = []
    for owner in owners:
        nearest = sorted(owner, key=lambda place: _ratio(place, anchor))
        ranked += [(_rank(place, anchor, turn), place) for turn, place in enumerate(nearest) if place is not anchor]
    chosen: list[QueueItem[Item]] = []
    for _, place in sorted(ranked, key=lambda entry: entry[0]):
        if len(chosen) + 1 >= bounds.together:
            break
        if _padded([anchor, *chosen, place]) <= bounds.padded_seconds:
            chosen.append(place)
    return chosen


def is_full(batch: Sequence[QueueItem[Item]], bounds: BatchLimits) -> bool:
    """Whether no utterance, however short, may be added."""
    longest = max(place.seconds for place in batch)
    return len(batch) >= bounds.together or (len(batch) + 1) * longest > bounds.padded_seconds


def _padded(batch: Sequence[QueueItem[Item]]) -> float:
    return len(batch) * max(place.seconds for place in batch)


def _ratio(place: QueueItem[Item], anchor: QueueItem[Item]) -> float:
    """How many times as long the longer is."""
    shorter, longer = sorted((place.seconds, anchor.seconds))
    return longer / shorter if shorter else math.inf


def _rank(place: QueueItem[Item], anchor: QueueItem[Item], turn: int) -> tuple[bool, int, float]:
    ratio = _ratio(place, anchor)
    return (False, turn, ratio) if ratio <= ALIKE else (True, 0, ratio)
