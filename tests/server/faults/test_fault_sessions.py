"""Floods of what a realtime session may be sent: they end the session that sends them, or wait for their turn."""

import base64
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from realtime_client import TRANSCRIPTION, CountingEngine, frame, raw_session, realtime_session
from serving import PATIENCE, Served, served
from websockets.frames import Close, CloseCode, Opcode

from runtime.server.protocol import MAX_CONTROL_FRAMES, MAX_FRAGMENTS, MAX_QUEUED_MESSAGES, PARSE_BYTES
from runtime.server.realtime.events import MAX_TEXT_CHARS
from runtime.transcriber import Transcriber

EVENT = b'{"type":"input_audio_buffer.clear"}'
NOISE = np.random.default_rng(1).normal(0, 3000, 2 * 24_000).astype("<i2").tobytes()  # 2 s


@pytest.fixture
def server(transcriber: Transcriber) -> Iterator[Served]:
    """A server around the demo model."""
    with served(transcriber) as running:
        yield running


def told(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The frames of the server, up to the end: opcode and data."""
    with connection.makefile("rb") as heard:
        while head := heard.read(2):
            length = head[1] if head[1] < 126 else int.from_bytes(heard.read(2 if head[1] == 126 else 8), "big")
            yield head[0] & 0x0F, heard.read(length)


def closed(connection: socket.socket) -> Close:
    """How the server closes."""
    return next(Close.parse(data) for opcode, data in told(connection) if opcode == Opcode.CLOSE)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_a_flood_of_pings_ends_its_session(server: Served, opcode: Opcode) -> None:
    with raw_session(server) as connection:
        connection.sendall(frame(opcode) * (MAX_CONTROL_FRAMES + 1))
        close = closed(connection)
        assert close.code == CloseCode.POLICY_VIOLATION
        assert "pings" in close.reason
    assert server.server_state.wait_idle(PATIENCE)
    assert server.get("/health/live").status_code == 200


def test_pings_of_minutes_are_answered(server: Served) -> None:
    with raw_session(server) as connection:
        connection.sendall(frame(Opcode.PING, b"x") * (MAX_CONTROL_FRAMES // 2) + frame(Opcode.CLOSE, b"\x03\xe8"))
        assert [opcode for opcode, _ in told(connection)] == [Opcode.PONG] * (MAX_CONTROL_FRAMES // 2) + [Opcode.CLOSE]


def in_frames(data: bytes) -> bytes:
    """A message in frames of a byte."""
    first, *rest, last = (data[at : at + 1] for at in range(len(data)))
    head = frame(Opcode.TEXT, first, fin=False)
    return b"".join([head, *(frame(Opcode.CONT, one, fin=False) for one in rest), frame(Opcode.CONT, last)])


def test_a_message_of_endless_frames_ends_its_session(server: Served) -> None:
    with raw_session(server) as connection:
        connection.sendall(in_frames(bytes(MAX_FRAGMENTS + 2)))
        close = closed(connection)
        assert close.code == CloseCode.MESSAGE_TOO_BIG
        assert str(MAX_FRAGMENTS) in close.reason
    assert server.server_state.wait_idle(PATIENCE)


def test_a_message_in_frames_of_a_byte_is_read(server: Served) -> None:
    event = EVENT[:-1] + b" " * (MAX_FRAGMENTS - len(EVENT)) + b"}"
    with raw_session(server) as connection:
        connection.sendall(in_frames(event))
        _, answer = next(told(connection))
        assert json.loads(answer)["type"] == "input_audio_buffer.cleared"


def test_a_flood_of_events_is_answered_one_by_one_while_others_are_too(server: Served) -> None:
    """Also what is in the middle of a frame where a piece ends."""
    count = 4 * PARSE_BYTES // len(EVENT)

    def flood() -> list[bytes]:
        with raw_session(server) as connection:
            connection.sendall(frame(Opcode.TEXT, EVENT) * count)
            return [data for _, data in islice(told(connection), count)]

    with ThreadPoolExecutor(4) as pool:
        floods = [pool.submit(flood) for _ in range(4)]
        with realtime_session(server) as talk:
            talk.set()
        assert server.get("/health/live").status_code == 200
        for answers in floods:
            kinds = [json.loads(answer)["type"] for answer in answers.result()]
            assert kinds == ["input_audio_buffer.cleared"] * count


def test_audio_is_the_same_however_its_base64_is_escaped(transcriber: Transcriber) -> None:
    """As PHP writes it, and .NET, and where a piece of it ends within an escape."""
    sound = NOISE * 20
    text = base64.b64encode(sound).decode()
    assert len(text) > MAX_TEXT_CHARS
    ways = [text, text.replace("/", "\\/"), text.replace("+", "\\u002B"), "".join(f"\\u{ord(one):04x}" for one in text)]
    engine = CountingEngine(transcriber.engine)
    with served(replace(transcriber, engine=engine)) as server, realtime_session(server) as talk:
        talk.set(turn_detection=None)
        for way in ways:
            talk.connection.send(f'{{"audio" : "{way}", "type": "input_audio_buffer.append"}}')
            talk.send("input_audio_buffer.commit")
            done = talk.wait(f"{TRANSCRIPTION}.completed")
            assert done["usage"]["seconds"] == len(sound) / 2 / 24_000


def test_messages_after_the_servers_close_do_not_delay_the_clients(server: Served) -> None:
    with raw_session(server) as connection:
        connection.sendall(frame(Opcode.TEXT, b'{"type": "session.finish"}'))
        received = b""
        while b"session.finished" not in received:
            received += connection.recv(4096)
        connection.sendall(frame(Opcode.TEXT, EVENT) * (2 * MAX_QUEUED_MESSAGES) + frame(Opcode.CLOSE, b"\x03\xe8"))
        connection.settimeout(5)
        while connection.recv(4096):
            pass
