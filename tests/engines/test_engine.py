"""The transformers engine as its callers meet it: streams and their listeners, company, cancelling, crashes."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from env.settings import Settings
from env.sources import load_settings
from runtime.audio import load
from runtime.demo import Clip
from runtime.engines import EngineError, Event, Observer, Utterance
from runtime.engines.stream import Stream
from runtime.engines.transformers import TransformersEngine
from runtime.model.load import Loaded
from runtime.transcriber import Transcriber, limits, open_transcriber

TIMEOUT = 60  # seconds, for what comes at once unless it is broken


class Watch(Observer):
    """Hears how many utterances each batch has, and holds the engine, before it decodes, until it is let."""

    def __init__(self, loaded: Loaded) -> None:
        self.batches: list[int] = []
        self.begun = threading.Semaphore(0)
        self.let = threading.Event()
        self.let.set()
        self.loaded = loaded
        self.events: list[str] = []
        self.waits: list[float] = []

    def batch_started(self, waits: Sequence[float], audio_seconds: float) -> None:
        self.batches.append(len(waits))
        self.waits += waits
        self.events.append("batch started")
        assert min(waits) >= 0 < audio_seconds
        self.begun.release()
        assert self.let.wait(TIMEOUT)

    def prefill_done(self, seconds: float) -> None:
        self.events.append("prefill done")
        assert seconds > 0

    def decode_step(self, seconds: float) -> None:
        self.events.append("decode step")
        assert seconds > 0

    def failed(self, reason: str) -> None:
        self.events.append(reason)


@pytest.fixture
def watched(transcriber: Transcriber) -> Watch:
    return Watch(transcriber.loaded)


@pytest.fixture(scope="module")
def utterances(transcriber: Transcriber, speech: list[Clip]) -> list[Utterance]:
    prompt = transcriber.prompt_builder.build()
    return [Utterance(load(c.path, limits=limits(transcriber.settings)).samples, prompt, 64) for c in speech]


@contextmanager
def running(watched: Watch, *, max_batch: int = 8, **bounds: Any) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(watched.loaded, max_batch=max_batch, observers=[watched], **bounds)
    engine.start()
    try:
        yield engine
    finally:
        watched.let.set()
        engine.stop(drain=False)


def texts(streams: Sequence[Stream]) -> list[str]:
    return [stream.result().text for stream in streams]


def test_what_a_listener_hears_is_what_a_reader_reads(watched: Watch, utterances: list[Utterance]) -> None:
    with running(watched) as engine:
        (one,) = engine.submit(utterances[:1])
        events: list[Event] = []
        ended = threading.Event()
        one.add_listener(events.append)
        one.add_listener(lambda event: None if isinstance(event, int) else ended.set())
        assert ended.wait(TIMEOUT)
        assert events == [*one, one.result()]


def test_a_short_answer_does_not_wait_for_its_long_batch_mate(watched: Watch, utterances: list[Utterance]) -> None:
    events: list[Event] = []
    with running(watched) as engine:
        watched.let.clear()
        long, short = engine.submit([utterances[0], replace(utterances[0], max_new_tokens=2)])
        long.add_listener(events.append)
        short.add_listener(lambda event: None if isinstance(event, int) else events.append(event))
        watched.let.set()
        assert short.result().truncated
        tokens = long.result().tokens
    assert events == [*tokens[:2], short.result(), *tokens[2:], long.result()]
    assert watched.batches == [2]


def test_requests_that_come_while_one_is_decoded_are_decoded_together(
    watched: Watch, utterances: list[Utterance]
) -> None:
    with running(watched) as engine:
        watched.let.clear()
        streams = list(engine.submit(utterances[:1]))
        assert watched.begun.acquire(timeout=TIMEOUT)
        for one in utterances:
            streams += engine.submit([one])
        assert engine.status().waiting == len(utterances)
        assert engine.status().decoding == 1
        watched.let.set()
        texts(streams)
    assert watched.batches == [1, len(utterances)]


def test_a_lone_utterance_waits_for_company_until_the_batch_is_full(
    watched: Watch, utterances: list[Utterance]
) -> None:
    with running(watched, max_batch=2, batch_wait_seconds=1e6) as engine:
        one, other = engine.submit(utterances[:1]), engine.submit(utterances[1:2])
        texts([*one, *other])
        texts(engine.submit(utterances[:2]))
    assert watched.batches == [2, 2]


def test_a_lone_utterance_waits_no_longer_than_it_shall(watched: Watch, utterances: list[Utterance]) -> None:
    with running(watched, batch_wait_seconds=0.001) as engine:
        texts(engine.submit(utterances[:1]))
    assert watched.batches == [1]


def test_nobody_waits_for_company_while_draining(watched: Watch, utterances: list[Utterance]) -> None:
    with running(watched, batch_wait_seconds=1e6) as engine:
        (one,) = engine.submit(utterances[:1])
        engine.stop()
        assert one.result().tokens


def test_the_budget_of_audio_bounds_a_batch(watched: Watch, utterances: list[Utterance]) -> None:
    same = [utterances[0]] * 6
    with running(watched, batch_audio_seconds=2.5 * same[0].seconds) as engine:
        texts(engine.submit(same))
    assert watched.batches == [2, 2, 2]


def test_a_cancelled_utterance_leaves_the_queue_and_ends_at_once(watched: Watch, utterances: list[Utterance]) -> None:
    with running(watched, max_batch=1) as engine:
        watched.let.clear()
        engine.submit(utterances[:1])
        assert watched.begun.acquire(timeout=TIMEOUT)
        gone, stays = engine.submit(utterances[:2])
        assert engine.status().waiting == 2
        gone.cancel()
        assert engine.status().waiting == 1
        with pytest.raises(CancelledError):
            gone.result()  # although the engine still decodes another
        gone.cancel()
        watched.let.set()
        assert stays.result().tokens
    assert watched.batches == [1, 1]


def test_one_that_is_cancelled_while_decoded_counts_no_more(watched: Watch, utterances: list[Utterance]) -> None:
    with running(watched) as engine:
        watched.let.clear()
        gone, stays = engine.submit(utterances[:2])
        assert watched.begun.acquire(timeout=TIMEOUT)
        gone.cancel()
        assert engine.status().decoding == 1
        watched.let.set()
        assert stays.result().tokens
        with pytest.raises(CancelledError):
            gone.result()


def test_a_listener_may_hand_over_the_next_utterance(watched: Watch, utterances: list[Utterance]) -> None:
    following: list[Stream] = []
    with running(watched) as engine:
        (one,) = engine.submit(utterances[:1])
        handed = threading.Event()

        def next_one(event: Event) -> None:
            if not isinstance(event, int):
                following.extend(engine.submit(utterances[1:2]))
                handed.set()

        one.add_listener(next_one)
        assert handed.wait(TIMEOUT)
        assert following[0].result().tokens


class Broken:
    """A device whose memory cannot be asked: a fault outside any utterance, once something does not fit."""

    def __init__(self, loaded: Loaded) -> None:
        self._device = loaded.device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def empty_cache(self) -> None:
        raise OSError("the device is gone")


def test_when_the_engine_fails_everybody_hears_of_it(
    watched: Watch, utterances: list[Utterance], caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(utterances[0], samples=utterances[0].samples[:0])
    watched.loaded = replace(watched.loaded, device=Broken(watched.loaded))  # type: ignore[arg-type]
    with running(watched, max_batch=2) as engine:
        watched.let.clear()
        one = engine.submit(utterances[:1])
        assert watched.begun.acquire(timeout=TIMEOUT)
        accepted = [*engine.submit([broken, *utterances]), *engine.submit(utterances[:1])]
        events: list[Event] = []
        accepted[-1].add_listener(events.append)
        watched.let.set()
        assert texts(one)
        for stream in accepted:
            with pytest.raises(EngineError, match="OSError: the device is gone"):
                stream.result()
        assert isinstance(events[0], EngineError)
        status = engine.status()
        assert (status.waiting, status.decoding, status.failed) == (0, 0, "OSError: the device is gone")
        with pytest.raises(EngineError, match="has failed: OSError: the device is gone"):
            engine.submit(utterances[:1])
    assert "the engine has failed" in caplog.text


def settings_with(**changes: str) -> Settings:
    return load_settings({"ASR_DEVICE": "cpu", **changes})


def test_the_settings_bound_a_batch(watched: Watch, utterances: list[Utterance]) -> None:
    budget = 2.5 * utterances[0].seconds
    settings = settings_with(ASR_BATCH_AUDIO_SECONDS=str(budget), ASR_MAX_BATCH="5")
    with open_transcriber(settings, observers=[watched]) as opened:
        for decoding in opened.engine.submit([utterances[0]] * 4):
            decoding.result()
        assert opened.engine.status().most_together == 5
    assert watched.batches == [2, 2]


def test_the_settings_say_how_long_a_lone_utterance_waits(watched: Watch, utterances: list[Utterance]) -> None:
    with open_transcriber(settings_with(ASR_BATCH_WAIT_MS="300"), observers=[watched]) as opened:
        assert opened.engine.submit(utterances[:1])[0].result().tokens
    assert watched.waits[0] >= 0.3


def test_observers_hear_each_step_and_the_end(watched: Watch, utterances: list[Utterance]) -> None:
    with running(watched) as engine:
        tokens = engine.submit([replace(utterances[0], max_new_tokens=3)])[0].result().tokens
    assert len(tokens) == 3
    assert watched.events == ["batch started", "prefill done", "decode step", "decode step"]
