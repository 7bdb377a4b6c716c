"""What every engine offers: utterances in, one at a time; for each a stream of tokens that ends in a result.

What runs together is the engine's own business; nobody outside builds a batch.
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
    """One segment of speech to be decoded: 16 kHz mono float32 samples, the prompt, and the most tokens to decode."""

    samples: npt.NDArray[np.float32]
    prompt: str
    max_new_tokens: int

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Decoded:
    """What the engine made of an utterance: its tokens without end tokens, their text, whether the limit of tokens cut
    them off, and the mean log-probability of the tokens and the end token; None where the engine does not know it."""

    tokens: tuple[int, ...]
    text: str
    truncated: bool
    avg_logprob: float | None = field(default=None, compare=False)  # it varies with what is decoded together


Event = int | Decoded | BaseException  # a token, or the end: a result or a failure


@dataclass(frozen=True)
class EngineServer:
    """A server that an engine hands utterances to: how many it has, and why it gets none, empty where it does. `name`
    stays what it is while the engine's process does: the address, or where the kit runs it, such as `vLLM on npu:3`."""

    name: str
    url: str
    decoding: int
    trouble: str = ""


@dataclass(frozen=True)
class EngineStatus:
    """What an engine holds and does: utterances waiting and being decoded, and the most it decodes together; `failed`
    says why it can decode no more, empty if it can; `servers` are those that do its work, none if it does."""

    waiting: int
    decoding: int
    most_together: int
    failed: str = ""
    servers: tuple[EngineServer, ...] = ()


class EngineError(FaultError):
    """The engine itself has failed, not an utterance; it must be started anew."""


class Decoding(Protocol):
    """An utterance on its way through an engine."""

    def __iter__(self) -> Iterator[int]:
        """The tokens as they come. Raises what `result` raises."""

    def result(self) -> Decoded:
        """Wait for the end. Raises KitError, or the engine's own failure, if this utterance could not be decoded."""

    def cancel(self) -> None:
        """Give up, wherever it is: the end is CancelledError, at once, unless the end was there before."""

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Tell `listener` every token, then the end: each exactly once, in order, for each listener.

        What came before is told at once, in the caller's thread; the rest in the thread it comes from, the engine's or
        that of `cancel`. That thread waits for the listener, so it shall only pass the event on, as
        `loop.call_soon_threadsafe` does. A listener that raises is logged and told nothing more.
        """


class Observer:
    """Hears from an engine what it does, in the engine's threads: its methods shall return at once. This one ignores
    all of it."""

    def starting(self, stage: str) -> None:
        """How far an engine is that takes long to start, in a few words."""

    def batch_started(self, waits: Sequence[float], audio_seconds: float) -> None:
        """A batch is decoded, of utterances that waited so many seconds each and hold so much audio together."""

    def prefill_done(self, seconds: float) -> None:
        """A batch's audio and prompts went through the model, up to the first token of each utterance."""

    def decode_step(self, seconds: float) -> None:
        """A further token of each utterance of a batch was decoded."""

    def failed(self, reason: str) -> None:
        """The engine can decode no more."""


class Engine(Protocol):
    """Decodes utterances, from `start` to `stop`."""

    @property
    def name(self) -> EngineName:
        """As ASR_ENGINE has it."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's."""

    @property
    def device(self) -> Device:
        """Where the model runs."""

    @property
    def loaded(self) -> "Loaded | None":
        """The model, where it is in this process."""

    def start(self) -> None:
        """Make ready to decode. Raises KitError where that is not possible; `stop` is still to be called."""

    def submit(self, utterances: Sequence[Utterance]) -> Sequence[Decoding]:
        """Hand over utterances, which wait until the engine has room; returns at once. Those of one call share the
        engine with those of other calls by turns. Raises EngineError after the engine has failed."""

    def status(self) -> EngineStatus:
        """What the engine is doing now."""

    def stop(self, *, drain: bool = True) -> None:
        """Decode what was accepted, then end; without `drain`, cancel it."""
