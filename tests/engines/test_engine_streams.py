"""A stream on its own: whoever listens or reads, whenever it comes, is utterance_stream all of it once and in order."""

from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from runtime.engines import Decoded, Event
from runtime.engines.stream import Stream


def stream() -> Stream:
    return Stream(None)  # type: ignore[arg-type]


DECODED = Decoded((1, 2), "text", False)


def test_a_listener_hears_all_once_and_in_order_whenever_it_comes() -> None:
    received: list[list[Event]] = [[], [], []]
    utterance_stream = stream()
    utterance_stream.add_listener(received[0].append)
    utterance_stream.push_token(1, 7)
    utterance_stream.add_listener(received[1].append)
    utterance_stream.push_token(1, 7)  # a batch that is decoded anew
    utterance_stream.push_token(2, 7)
    utterance_stream.push(DECODED)
    utterance_stream.push(CancelledError())
    utterance_stream.push_token(3, 7)
    utterance_stream.add_listener(received[2].append)
    assert received == [[7, 7, DECODED]] * 3
    assert (list(utterance_stream), list(utterance_stream), utterance_stream.result()) == ([7, 7], [7, 7], DECODED)


def test_listeners_that_come_while_tokens_do_miss_and_double_nothing() -> None:
    utterance_stream = stream()
    count, listeners = 2000, 50
    received: list[list[Event]] = [[] for _ in range(listeners)]

    def push_all() -> None:
        for k in range(1, count + 1):
            utterance_stream.push_token(k, k)

    with ThreadPoolExecutor() as threads:
        pushing = threads.submit(push_all)
        list(threads.map(lambda events: utterance_stream.add_listener(events.append), received))
        pushing.result()
    utterance_stream.push(DECODED)
    assert received == [[*range(1, count + 1), DECODED]] * listeners


def test_a_listener_may_cancel_and_the_others_still_hear_it_in_order() -> None:
    utterance_stream, received = stream(), list[Event]()
    utterance_stream.add_listener(lambda _: utterance_stream.cancel())
    utterance_stream.add_listener(received.append)
    utterance_stream.push_token(1, 7)
    assert received[0] == 7
    assert isinstance(received[1], CancelledError)
    assert len(received) == 2


def test_a_listener_that_fails_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    utterance_stream, received, calls = stream(), list[Event](), list[Event]()

    def faulty(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("the loop is closed")

    utterance_stream.add_listener(faulty)
    utterance_stream.add_listener(received.append)
    utterance_stream.push_token(1, 7)
    utterance_stream.push(DECODED)
    assert (calls, received) == ([7], [7, DECODED])
    assert "the loop is closed" in caplog.text
