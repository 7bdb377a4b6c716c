"""The interface of every engine: each utterance submitted becomes a stream of tokens that ends in a result.

The engine alone decides what is decoded together; callers build no batches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from env.errors import FaultError
from env.groups.model import EngineName
from runtime.audio import SAMPLE_RATE
from runtime.model.device import Device
from runtime.model.prompt import Tokenizer

if TYPE_CHECKING:
    from runtime.model.load import Loaded


@dataclass(frozen=True)
class Utterance:
    """One segment of speech to decode: `samples` (n,) are 16 kHz mono float32; `max_new_tokens` limits the answer."""

    samples: npt.NDArray[np.float32]
    prompt: str
    max_new_tokens: int

    @property
    def seconds(self) -> float:
        """Length of the audio in seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Decoded:
    """The decoded utterance: token ids without end tokens, their text, whether `max_new_tokens` cut it off, and the
    mean log-probability of the tokens and the end token, None where the engine does not know it."""

    tokens: tuple[int, ...]
    text: str
    truncated: bool
    avg_logprob: float | None = field(default=None, compare=False)  # it varies with what is decoded together


Event = int | Decoded | BaseException  # a token, or the end: a result or a failure


@dataclass(frozen=True)
class EngineServer:
    """A server behind an engine: how many utterances it is decoding, and in `trouble` why it gets none, if so. `name`
    does not change while the engine's process runs: the address, or where the kit runs it, such as `vLLM on npu:3`."""

    name: str
    url: str
    decoding: int
    trouble: str = ""


@dataclass(frozen=True)
class EngineStatus:
    """An engine's load: utterances waiting and being decoded, and the most it decodes together. `failed` is the reason
    why it can decode no more, or empty; `servers` are those behind it, empty if it decodes in this process."""

    waiting: int
    decoding: int
    most_together: int
    failed: str = ""
    servers: tuple[EngineServer, ...] = ()


class EngineError(FaultError):
    """The engine itself has failed, not an utterance; it must be restarted."""


class Decoding(Protocol):
    """An utterance on its way through an engine."""

    def __iter__(self) -> Iterator[int]:
        """The tokens as they come. Raises what `result` raises."""

    def result(self) -> Decoded:
        """Wait for the end. Raises KitError, or the engine's own failure, if this utterance could not be decoded."""

    def cancel(self) -> None:
        """End it with CancelledError at once, queued or decoding; no effect if it has ended."""

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every token, then the end: each exactly once, in order.

        Past events are delivered at once, in the caller's thread; later ones in the thread that causes them, the
        engine's or that of `cancel`. That thread waits for the listener, which should only pass the event on, as
        `loop.call_soon_threadsafe` does. A listener that raises is logged and removed.
        """


class Observer:
    """Receives an engine's events, in the engine's threads: methods must return at once. This one ignores them."""

    def starting(self, stage: str) -> None:
        """The engine's start has reached a stage, described in a few words."""

    def batch_started(self, waits: Sequence[float], audio_seconds: float) -> None:
        """Decoding of a batch begins: `waits` are the seconds that each utterance was queued."""

    def prefill_done(self, seconds: float) -> None:
        """Prefill of a batch is done: audio and prompts, up to the first token of each utterance."""

    def decode_step(self, seconds: float) -> None:
        """A decode step is done: one further token of each utterance of a batch."""

    def failed(self, reason: str) -> None:
        """The engine has failed for this reason, and decodes no more."""


class Engine(Protocol):
    """Decodes utterances between `start` and `stop`; thread-safe."""

    @property
    def name(self) -> EngineName:
        """The engine's name, a value of ASR_ENGINE."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the engine's checkpoint."""

    @property
    def device(self) -> Device:
        """The device on which the model runs."""

    @property
    def loaded(self) -> "Loaded | None":
        """The loaded model, None where it is in another process."""

    def start(self) -> None:
        """Start decoding. Raises KitError where that is not possible; `stop` must still be called."""

    def submit(self, utterances: Sequence[Utterance]) -> Sequence[Decoding]:
        """Queue the utterances of one request; returns at once. Requests take turns, however many utterances each has.

        Raises EngineError after the engine has failed.
        """

    def status(self) -> EngineStatus:
        """The engine's current load and health."""

    def stop(self, *, drain: bool = True) -> None:
        """Decode what was accepted, then stop; without `drain`, cancel it."""
