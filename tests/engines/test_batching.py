"""What is decoded together: likeness, budget, fairness, waiting. No model, no clock."""

import math

import pytest

from runtime.engines.batching import BatchLimits, Queue, QueueItem


def queue(together: int = 4, padded: float = math.inf, wait: float = 0.0) -> Queue[str]:
    return Queue(BatchLimits(together, padded, wait))


def items(name: str, *seconds: float, since: float = 0.0) -> list[QueueItem[str]]:
    """As one call of `submit` would hand them over: item k of 3 s is called name-k-3."""
    return [QueueItem(f"{name}-{k}-{length:g}", length, since) for k, length in enumerate(seconds)]


def seconds(batch: list[str]) -> list[float]:
    return [float(item.rsplit("-", 1)[1]) for item in batch]


def test_like_lengths_are_together_and_the_oldest_is_among_them() -> None:
    waiting = queue()
    waiting.add(items("file", 2, 20, 2.5, 19, 1.8, 21, 2.2, 18))
    assert sorted(seconds(waiting.take())) == [1.8, 2, 2.2, 2.5]
    assert sorted(seconds(waiting.take())) == [18, 19, 20, 21]
    assert waiting.take() == []


def test_lengths_of_several_owners_are_together() -> None:
    waiting = queue()
    for name in "abcd":
        waiting.add(items(name, 2, 20))
    assert seconds(waiting.take()) == [2, 2, 2, 2]
    assert seconds(waiting.take()) == [20, 20, 20, 20]


def test_a_free_place_is_filled_by_what_is_unlike() -> None:
    waiting = queue()
    waiting.add(items("one", 2))
    waiting.add(items("other", 30, 9))
    assert seconds(waiting.take()) == [2, 9, 30]


def test_the_budget_counts_each_as_long_as_the_longest() -> None:
    waiting = queue(together=8, padded=30)
    waiting.add(items("file", 10, 10, 9, 10.5, 1))
    assert seconds(waiting.take()) == [10, 10, 9]  # with 10.5 it were 3 x 10.5, and with 1 as the fourth 4 x 10
    assert seconds(waiting.take()) == [10.5, 1]


def test_what_is_longer_than_the_budget_goes_alone() -> None:
    waiting = queue(together=8, padded=30)
    waiting.add(items("file", 40, 1, 1))
    assert seconds(waiting.take()) == [40]
    assert seconds(waiting.take()) == [1, 1]


@pytest.mark.parametrize("length", [0.0, 1.0, 30.0, 300.0])
def test_a_request_beside_a_file_of_200_segments_is_in_the_next_batch_but_one(length: float) -> None:
    waiting = queue(together=8, padded=480)
    waiting.add(items("file", *[25 + k % 6 for k in range(200)]))
    waiting.take()
    waiting.add(items("short", length))
    batches = [waiting.take(), waiting.take()]
    assert any("short-0" in item for batch in batches for item in batch)


def test_alike_owners_share_a_batch() -> None:
    waiting = queue(together=4)
    waiting.add(items("file", *[30] * 200))
    for name in ("one", "two", "three"):
        waiting.add(items(name, 30, 30))
    assert sorted(item.split("-")[0] for item in waiting.take()) == ["file", "one", "three", "two"]


def test_nobody_waits_for_more_batches_than_there_were_owners_before_him() -> None:
    """A file, an odd length among lengths that suit each other, and newcomers with every batch."""
    waiting = queue(together=2)
    waiting.add(items("file", *[5] * 200))
    for k in range(5):
        waiting.add(items(f"early{k}", 5, 5))
    waiting.add(items("odd", 29))
    for passed in range(7):
        batch = waiting.take()
        if "odd-0-29" in batch:
            break
        waiting.add(items(f"late{passed}", 5))
        waiting.add(items(f"later{passed}", 5))
    assert "odd-0-29" in batch
    assert passed <= 6


def test_the_oldest_of_a_file_is_not_passed_over_for_ever_by_newcomers() -> None:
    waiting = queue(together=2)
    waiting.add(items("file", 29, 29, 29))
    taken = []
    for k in range(9):
        waiting.add(items(f"new{k}", 1))
        taken.append(waiting.take())
    assert sum("file" in item for batch in taken for item in batch) == 3


def test_all_come_once() -> None:
    waiting = queue(together=3, padded=60)
    handed = [items(name, *[1 + (7 * k + ord(name)) % 29 for k in range(20)]) for name in "abcde"]
    for owner in handed:
        waiting.add(owner)
    taken = []
    while batch := waiting.take():
        assert len(batch) <= 3
        assert len(batch) * max(seconds(batch)) <= 60
        taken += batch
    assert sorted(taken) == sorted(place.item for owner in handed for place in owner)


def test_who_leaves_frees_the_place() -> None:
    waiting = queue()
    waiting.add(items("file", 1, 1))
    waiting.add(items("other", 1))
    waiting.remove("file-0-1")
    waiting.remove("other-0-1")
    waiting.remove("never there")
    assert (len(waiting), list(waiting)) == (1, ["file-1-1"])
    assert waiting.take() == ["file-1-1"]
    assert waiting.due() == math.inf


def test_a_lone_utterance_waits_for_company() -> None:
    waiting = queue(wait=0.005)
    assert waiting.due() == math.inf
    waiting.add(items("one", 3, since=100.0))
    assert waiting.due() == 100.005
    waiting.add(items("two", 3, since=100.004))
    assert waiting.due() == 100.005


def test_nobody_waits_where_none_may_join() -> None:
    for full in (queue(together=1, wait=1), queue(padded=5.9, wait=1)):
        full.add(items("one", 3, since=100.0))
        assert full.due() == -math.inf
    two = queue(together=2, wait=1)
    two.add(items("one", 3, since=100.0))
    two.add(items("two", 9, since=100.0))
    assert two.due() == -math.inf


def test_those_handed_over_together_do_not_wait() -> None:
    waiting = queue(wait=1)
    waiting.add(items("one", 3, since=100.0))
    waiting.add(items("file", 3, 3, since=100.0))
    assert waiting.due() == -math.inf


def test_nothing_handed_over_is_nothing() -> None:
    waiting = queue()
    waiting.add([])
    assert len(waiting) == 0
    assert waiting.take() == []
