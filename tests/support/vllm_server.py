"""What stands in for a vLLM elsewhere on the network: a server on the loopback that answers as vLLM 0.18 does, byte for
byte in the forms that were recorded of it, decodes with the demo model, and misbehaves as a test says."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from vllm_handler import LONGEST, Server

from runtime.transcriber import Transcriber

__all__ = ["LONGEST", "Fault", "StandIn", "vllm_server"]

Kind = Literal["error", "abort", "cut", "end", "hold", "refuse", "lie"]


@dataclass
class Fault:
    """Happens to the next utterance, after `after` tokens: an error in its stream; abort as its finish_reason; a
    connection that is cut; an end without a finish_reason; nothing at all until `release` or the client hangs up, which
    sets `hung_up`; a status other than 200, with a message; a wrong count of its tokens."""

    kind: Kind
    after: int = 1
    status: int = 500
    message: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)


@dataclass
class StandIn:
    """A vLLM at `url`, the model's name being `model`. `template` None is the kit's raw one; `key` None lets everybody
    in; `health` is the status that /health answers, unless it `hangs`; with `tls` it speaks https; `together` tokens
    are told at a time, their text with a `garnish`; `heard` are the requests' bodies without those that check it,
    `asked` all paths and headers."""

    transcriber: Transcriber
    port: int = 0
    model: str = "demo"
    version: str = "0.18.0"
    max_model_len: int = 4096
    template: Callable[[str], str] | None = None
    content_format: Literal["string", "openai"] = "string"
    vocabulary: int = 0  # added to every token that /tokenize tells
    key: str | None = None
    health: int = 200
    hangs: bool = False
    tls: ssl.SSLContext | None = None
    audio_fault: tuple[int, str] | None = None  # what it answers to each audio
    together: int = 1
    garnish: str = ""
    faults: list[Fault] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _server: Server | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def come(self) -> None:
        """Answer, on the port that it had before, if it had one."""
        self._server = Server(self)
        self.port = self._server.server_port

    def drain(self) -> None:
        """Take no more connections, and answer what came before."""
        assert self._server
        self._server.close_port()

    def die(self) -> None:
        """Cut all connections, and take no more, as the kernel does when a process is killed."""
        if self._server:
            self._server.die()
            self._server = None

    def fault(self, kind: Kind, **options: Any) -> Fault:
        """Have the next utterance without a fault meet one."""
        made = Fault(kind, **options)
        with self.lock:
            self.faults.append(made)
        return made

    def next_fault(self) -> Fault | None:
        """The fault that the next utterance meets."""
        with self.lock:
            return self.faults.pop(0) if self.faults else None


@contextmanager
def vllm_server(transcriber: Transcriber, **changes: Any) -> Iterator[StandIn]:
    """A stand-in that runs; `transcriber` decodes for it."""
    stand_in = StandIn(transcriber, **changes)
    stand_in.come()
    try:
        yield stand_in
    finally:
        stand_in.die()
