"""Which utterances are decoded together, and when: a queue with round-robin over the requests.

Nothing here decodes, waits or locks; times are in seconds of a monotonic clock.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

MAX_LENGTH_RATIO = 2.0  # times the length of the head: padding to that wastes half at most


@dataclass(frozen=True)
class BatchLimits:
    """The most utterances and padded seconds of audio in a batch, and how many seconds a lone utterance waits for batch
    mates."""

    together: int
    padded_seconds: float = math.inf
    wait_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class QueueItem(Generic[Item]):
    """A queued utterance: the item itself, its seconds of audio, and since when (monotonic clock)."""

    item: Item
    seconds: float
    since: float


class Queue(Generic[Item]):
    """Utterances that wait, by request: those handed over together are one.

    Round-robin over requests: the head request contributes its oldest utterance and moves to the back, where new
    requests go too, so none waits more batches than there are requests. The rest of the batch are `batch_mates`, which
    cost nobody a turn.
    """

    def __init__(self, bounds: BatchLimits) -> None:
        self.bounds = bounds
        self._requests: list[list[QueueItem[Item]]] = []  # none empty, oldest utterance first; head first

    def __len__(self) -> int:
        return sum(map(len, self._requests))

    def __iter__(self) -> Iterator[Item]:
        return (queued.item for request in self._requests for queued in request)

    def add(self, items: Sequence[QueueItem[Item]]) -> None:
        """Queue the utterances of one request, in order, behind all other requests."""
        if items:
            self._requests.append(list(items))

    def remove(self, item: Item) -> None:
        """Take an item out of the queue, if it is there."""
        self._keep([queued for request in self._requests for queued in request if queued.item == item])

    def due(self) -> float:
        """When the next batch may start: at once (-inf), unless each request has a single utterance and the batch has
        room; then when the oldest has waited `wait_seconds`. Never (inf) if none waits."""
        if not self._requests:
            return math.inf
        if any(len(request) > 1 for request in self._requests) or is_full(self._choose(), self.bounds):
            return -math.inf
        return min(request[0].since for request in self._requests) + self.bounds.wait_seconds

    def take(self) -> list[Item]:
        """The next batch, its head first; empty if none waits."""
        if not self._requests:
            return []
        batch = self._choose()
        self._requests.append(self._requests.pop(0))
        self._keep(batch)
        return [queued.item for queued in batch]

    def _choose(self) -> list[QueueItem[Item]]:
        head = self._requests[0][0]
        return [head, *batch_mates(head, self._requests, self.bounds)]

    def _keep(self, without: Sequence[QueueItem[Item]]) -> None:
        gone = set(without)
        left = [[queued for queued in request if queued not in gone] for request in self._requests]
        self._requests = [request for request in left if request]


def batch_mates(
    head: QueueItem[Item], requests: Sequence[Sequence[QueueItem[Item]]], bounds: BatchLimits
) -> list[QueueItem[Item]]:
    """The utterances decoded with `head`, as many as `bounds` allow.

    First those of similar length: one of each request, then a second of each, and so on, the nearest in length first.
    Then all others, by length. Even those are worth a free row: on an NPU, a decode step of a large model costs hardly
    more for many rows than for one, and each row is answered as soon as it ends.
    """
    if bounds.together == 1:
        return []
    ranked = []
    for request in requests:
        nearest = sorted(request, key=lambda queued: _ratio(queued, head))
        ranked += [(_rank(queued, head, turn), queued) for turn, queued in enumerate(nearest) if queued is not head]
    chosen: list[QueueItem[Item]] = []
    for _, queued in sorted(ranked, key=lambda entry: entry[0]):
        if len(chosen) + 1 >= bounds.together:
            break
        if _padded([head, *chosen, queued]) <= bounds.padded_seconds:
            chosen.append(queued)
    return chosen


def is_full(batch: Sequence[QueueItem[Item]], bounds: BatchLimits) -> bool:
    """Whether no utterance, however short, fits any more."""
    longest = max(queued.seconds for queued in batch)
    return len(batch) >= bounds.together or (len(batch) + 1) * longest > bounds.padded_seconds


def _padded(batch: Sequence[QueueItem[Item]]) -> float:
    return len(batch) * max(queued.seconds for queued in batch)


def _ratio(queued: QueueItem[Item], head: QueueItem[Item]) -> float:
    """Length of the longer, divided by that of the shorter."""
    shorter, longer = sorted((queued.seconds, head.seconds))
    return longer / shorter if shorter else math.inf


def _rank(queued: QueueItem[Item], head: QueueItem[Item], turn: int) -> tuple[bool, int, float]:
    ratio = _ratio(queued, head)
    return (False, turn, ratio) if ratio <= MAX_LENGTH_RATIO else (True, 0, ratio)
