"""What realtime sessions hold: little while nothing is said, and nothing once they have ended, however they did."""

import gc
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from fronting import until
from processes import resident
from realtime_client import TRANSCRIPTION, RealtimeClient, raw_session, realtime_session
from serving import PATIENCE, HeldEngine, Served, decoded, held, served

from runtime.audio import SAMPLE_RATE
from runtime.audio.voice_activity import VoiceActivityDetector
from runtime.engines import EngineError
from runtime.server.protocol import BoundedWebSocket
from runtime.server.realtime.session import Session
from runtime.server.realtime.transcription import TurnTranscriber
from runtime.server.realtime.turn import Turn
from runtime.transcriber import Transcriber

NOISE = np.random.default_rng(1).normal(0, 0.1, 3 * SAMPLE_RATE // 2).astype(np.float32)
SESSIONS = 100
MOST = 1 << 20  # bytes of memory for a session that says nothing


def alive() -> Counter[str]:
    """What belongs to sessions and is still there."""
    kinds = (Session, TurnTranscriber, Turn, VoiceActivityDetector, BoundedWebSocket)
    return Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), kinds))


@contextmanager
def uncollected() -> Iterator[None]:
    """Only what nothing refers to is freed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def close(_: Served, __: HeldEngine, talk: RealtimeClient) -> None:
    talk.connection.close()


def vanish(_: Served, __: HeldEngine, talk: RealtimeClient) -> None:
    talk.connection.socket.shutdown(socket.SHUT_RDWR)


def vanish_while_it_is_answered(_: Served, __: HeldEngine, talk: RealtimeClient) -> None:
    for number in range(100):
        talk.send("input_audio_buffer.clear", event_id=str(number))
    talk.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    talk.connection.socket.close()


def speak(talk: RealtimeClient) -> None:
    """With and without a detection of voice, so that of both there is something to keep."""
    talk.set(format={"rate": 16000})
    talk.append(NOISE)
    talk.set(turn_detection=None)
    talk.append(NOISE)
    talk.set()


def finish(_: Served, engine: HeldEngine, talk: RealtimeClient) -> None:
    speak(talk)
    talk.send("session.finish")
    engine.next()  # of the growing segment, cancelled by now
    engine.next().tell(decoded("done"))
    talk.wait("session.finished")
    talk.wait_closed()


def vanish_while_it_is_decoded(_: Served, engine: HeldEngine, talk: RealtimeClient) -> None:
    speak(talk)
    decoding = engine.next()
    talk.connection.socket.shutdown(socket.SHUT_RDWR)
    assert decoding.cancelled.wait(PATIENCE)


def fail_to_decode(_: Served, engine: HeldEngine, talk: RealtimeClient) -> None:
    speak(talk)
    engine.next().tell(RuntimeError("bad luck"))
    talk.send("input_audio_buffer.commit")
    engine.next().tell(RuntimeError("more of it"))
    talk.wait(f"{TRANSCRIPTION}.failed")
    talk.connection.close()


def lose_the_engine(_: Served, engine: HeldEngine, talk: RealtimeClient) -> None:
    speak(talk)
    engine.next().tell(EngineError("engine", "has failed"))
    assert talk.wait_closed().code == 1011


def be_refused(_: Served, __: HeldEngine, talk: RealtimeClient) -> None:
    talk.send("nothing.known")
    talk.wait("error")
    talk.send("session.update", session={"audio": {"input": {"transcription": {"language": "tlh"}}}})
    talk.wait("error")
    talk.connection.close()


def drain(server: Served, engine: HeldEngine, talk: RealtimeClient) -> None:
    speak(talk)
    engine.next()
    server.server_state.drain()
    engine.next().tell(decoded("done"))
    assert talk.wait_closed().code == 1001
    server.server_state.resume()


def cancel_all(server: Served, engine: HeldEngine, talk: RealtimeClient) -> None:
    speak(talk)
    engine.next()
    server.http_server.call(server.service.cancel_all)
    assert talk.wait_closed().code == 1001


def say_nothing(_: Served, __: HeldEngine, talk: RealtimeClient) -> None:
    assert "idle" in talk.wait_closed().reason


ENDS: list[Callable[[Served, HeldEngine, RealtimeClient], None]] = [
    close,
    vanish,
    vanish_while_it_is_answered,
    finish,
    vanish_while_it_is_decoded,
    fail_to_decode,
    lose_the_engine,
    be_refused,
    drain,
    cancel_all,
    say_nothing,
]


@pytest.mark.parametrize("end", ENDS)
def test_a_session_that_has_ended_leaves_nothing(
    transcriber: Transcriber, end: Callable[[Served, HeldEngine, RealtimeClient], None]
) -> None:
    silent, engine = held(transcriber)
    idle = 0.1 if end is say_nothing else 60
    with served(silent, session_idle_seconds=idle) as server, uncollected():
        with realtime_session(server) as talk:
            end(server, engine, talk)
        assert server.server_state.wait_idle(PATIENCE)
        until(lambda: not alive())


def test_a_session_that_says_nothing_costs_little(transcriber: Transcriber) -> None:
    silent, _ = held(transcriber)
    with served(silent) as server, ExitStack() as stack:
        stack.enter_context(raw_session(server))
        before = resident()
        for _ in range(SESSIONS):
            stack.enter_context(raw_session(server))
        assert (resident() - before) / SESSIONS < MOST
