"""A stream on its own: whoever listens or reads, whenever it comes, is told all of it once and in order."""

from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from runtime.engines import Decoded, Event
from runtime.engines.stream import Stream


def stream() -> Stream:
    return Stream(None)  # type: ignore[arg-type]


DECODED = Decoded((1, 2), "text", False)


def test_a_listener_hears_all_once_and_in_order_whenever_it_comes() -> None:
    heard: list[list[Event]] = [[], [], []]
    told = stream()
    told.add_listener(heard[0].append)
    told.push_token(1, 7)
    told.add_listener(heard[1].append)
    told.push_token(1, 7)  # a batch that is decoded anew
    told.push_token(2, 7)
    told.push(DECODED)
    told.push(CancelledError())
    told.push_token(3, 7)
    told.add_listener(heard[2].append)
    assert heard == [[7, 7, DECODED]] * 3
    assert (list(told), list(told), told.result()) == ([7, 7], [7, 7], DECODED)


def test_listeners_that_come_while_tokens_do_miss_and_double_nothing() -> None:
    told = stream()
    count, listeners = 2000, 50
    heard: list[list[Event]] = [[] for _ in range(listeners)]

    def push_all() -> None:
        for k in range(1, count + 1):
            told.push_token(k, k)

    with ThreadPoolExecutor() as threads:
        pushing = threads.submit(push_all)
        list(threads.map(lambda events: told.add_listener(events.append), heard))
        pushing.result()
    told.push(DECODED)
    assert heard == [[*range(1, count + 1), DECODED]] * listeners


def test_a_listener_may_cancel_and_the_others_still_hear_it_in_order() -> None:
    told, heard = stream(), list[Event]()
    told.add_listener(lambda _: told.cancel())
    told.add_listener(heard.append)
    told.push_token(1, 7)
    assert heard[0] == 7
    assert isinstance(heard[1], CancelledError)
    assert len(heard) == 2


def test_a_listener_that_fails_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    told, heard, calls = stream(), list[Event](), list[Event]()

    def faulty(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("the loop is closed")

    told.add_listener(faulty)
    told.add_listener(heard.append)
    told.push_token(1, 7)
    told.push(DECODED)
    assert (calls, heard) == ([7], [7, DECODED])
    assert "the loop is closed" in caplog.text
