"""Realtime sessions as tests lead them: a raw WebSocket, and speech in PCM."""

import base64
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr
from serving import PATIENCE, HeldDecoding, HeldEngine, Served
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, CloseCode, Opcode
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.engines import Decoded, Engine, Utterance
from runtime.model.prompt import ASR_TEXT
from runtime.transcriber import Request, Transcriber

PAUSE = 1.0  # seconds between utterances, enough for the server's voice activity
TRANSCRIPTION = "conversation.item.input_audio_transcription"
Samples = npt.NDArray[np.float32]


@dataclass
class RealtimeClient:
    """A client in a session; `events` are all that the server has sent."""

    connection: Connection
    events: list[dict[str, Any]] = field(default_factory=list)

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event of that type."""
        self.connection.send(json.dumps({"type": kind, **fields}))

    def append(self, samples: Samples, *, rate: int = SAMPLE_RATE, most: float = 0.1) -> None:
        """Send samples at 16 kHz as PCM at `rate`, in events of at most `most` seconds."""
        sound = pcm(samples, rate=rate)
        size = 2 * int(most * rate)
        for start in range(0, len(sound), size):
            audio = base64.b64encode(sound[start : start + size]).decode()
            self.send("input_audio_buffer.append", audio=audio)

    def set(self, **wanted: Any) -> dict[str, Any]:
        """Change the settings of the input; return the session as the server describes it."""
        self.send("session.update", session={"type": "transcription", "audio": {"input": wanted}})
        session: dict[str, Any] = self.wait("session.updated")["session"]
        return session

    def next(self) -> dict[str, Any]:
        """Receive the next event."""
        event: dict[str, Any] = json.loads(self.connection.recv(timeout=PATIENCE))
        self.events.append(event)
        return event

    def wait(self, kind: str) -> dict[str, Any]:
        """Receive events up to one of that type, none of them an unexpected error."""
        while (event := self.next())["type"] != kind:
            assert event["type"] != "error" or kind == "error", event
        return event

    def wait_closed(self) -> Close:
        """Receive all events until the server closes; return its close frame."""
        try:
            while True:
                self.next()
        except ConnectionClosed as closed:
            return closed.rcvd or Close(CloseCode.ABNORMAL_CLOSURE, "")

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The events of that type so far."""
        return [event for event in self.events if event["type"] == kind]

    def transcript_of(self, item: str) -> str:
        """The deltas of an item, joined."""
        return "".join(event["delta"] for event in self.of_type(f"{TRANSCRIPTION}.delta") if event["item_id"] == item)


@contextmanager
def realtime_session(server: Served, *, query: str = "", **options: Any) -> Iterator[RealtimeClient]:
    """A session that has been created."""
    address = f"{server.url.replace('http', 'ws', 1)}/v1/realtime{query}"
    with connect(address, proxy=None, compression=None, **options) as connection:
        talk = RealtimeClient(connection)
        assert talk.next()["type"] == "session.created"
        yield talk


@contextmanager
def raw_session(server: Served) -> Iterator[socket.socket]:
    """A session on a raw socket, which can send what no client does."""
    with socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as connection:
        head = "GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        connection.sendall(f"{head}{key}\r\n".encode())
        received = b""
        while b"session.created" not in received:
            received += (piece := connection.recv(4096))
            assert piece, received
        yield connection


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """One frame of a client, masked with zeros, and with at most 125 bytes."""
    return bytes((0x80 * fin | opcode, 0x80 | len(data))) + bytes(4) + data


def pcm(samples: Samples, *, rate: int = SAMPLE_RATE) -> bytes:
    """16-bit mono."""
    sound = samples if rate == SAMPLE_RATE else soxr.resample(samples, SAMPLE_RATE, rate)
    return (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()


def spoken(transcriber: Transcriber, clips: Sequence[Clip]) -> Samples:
    """The clips with a quiet room before, between and behind them, at 16 kHz."""
    room = np.random.default_rng(0).normal(0, 1e-3, int(PAUSE * SAMPLE_RATE)).astype(np.float32)
    parts = [room]
    for clip in clips:
        parts += [transcriber.prepare(Request(clip.path)).audio.samples, room]
    return np.concatenate(parts)


class CountingEngine(HeldEngine):
    """Hears a word each whole second, and counts the seconds that it is given."""

    def __init__(self, real: Engine) -> None:
        super().__init__(real)
        self.given: list[Utterance] = []

    def submit(self, utterances: Sequence[Utterance]) -> Sequence[HeldDecoding]:
        decodings = [HeldDecoding(utterance) for utterance in utterances]
        for decoding in decodings:
            self.given.append(decoding.utterance)
            decoding.tell(_answer(decoding.utterance))
        return decodings


def _answer(utterance: Utterance) -> Decoded:
    words = [f"w{number}" for number in range(int(utterance.seconds))]
    _, tag, before = utterance.prompt.partition(ASR_TEXT)
    known = len(before.split())
    rest = "".join(f" {word}" for word in words[known:])
    return Decoded(tuple(range(len(words) - known)), rest if tag else f"language English{ASR_TEXT}{rest}", False)
