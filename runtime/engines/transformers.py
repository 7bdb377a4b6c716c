"""The transformers engine: a worker thread takes batches from a queue (batching.py) and decodes each (decode.py).

A batch ends when its longest answer ends.
"""

import logging
import math
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from env.groups.model import EngineName
from runtime.engines import Decoded, EngineError, EngineStatus, Observer, Utterance, decode
from runtime.engines.batching import BatchLimits, Queue, QueueItem
from runtime.engines.decode import Token
from runtime.engines.stream import Stream
from runtime.model.device import OutOfMemoryError, is_out_of_memory
from runtime.model.load import Loaded

log = logging.getLogger(__name__)


class TransformersEngine:
    """Decodes with a loaded checkpoint, up to `max_batch` utterances and `batch_audio_seconds` of padded audio at a
    time; a lone utterance waits up to `batch_wait_seconds` for batch mates."""

    name: EngineName = "transformers"

    def __init__(
        self,
        loaded: Loaded,
        *,
        max_batch: int,
        batch_audio_seconds: float = math.inf,
        batch_wait_seconds: float = 0.0,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.loaded, self.tokenizer, self.device = loaded, loaded.tokenizer, loaded.device
        self._observers = observers
        self._queue: Queue[Stream] = Queue(BatchLimits(max_batch, batch_audio_seconds, batch_wait_seconds))
        self._batch: list[Stream] = []
        self._stopping = False
        self._failed = ""
        self._changed = threading.Condition()  # not held while streams get events: their listeners may call the engine
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Start the worker thread, which decodes until `stop`."""
        self._worker.start()

    def submit(self, utterances: Sequence[Utterance]) -> Sequence[Stream]:
        """Hand over utterances; those handed over together may be decoded together from the start."""
        streams = [Stream(utterance, on_cancel=self._withdraw) for utterance in utterances]
        with self._changed:
            if self._failed:
                raise _failure(self._failed)
            if self._stopping:
                raise RuntimeError("the engine has stopped")
            self._queue.add([QueueItem(stream, stream.utterance.seconds, stream.since) for stream in streams])
            self._changed.notify()
        return streams

    def status(self) -> EngineStatus:
        """Utterances waiting and being decoded; those that have ended or were cancelled do not count."""
        with self._changed:
            decoding = sum(not stream.ended for stream in self._batch)
            return EngineStatus(len(self._queue), decoding, self._queue.bounds.together, self._failed)

    def stop(self, *, drain: bool = True) -> None:
        """End the worker: after all that was accepted has been decoded or, without `drain`, at the next token."""
        with self._changed:
            self._stopping = True
            cancelled = [] if drain else [*self._queue, *self._batch]
            self._changed.notify()
        for stream in cancelled:
            stream.cancel()
        self._worker.join()

    def _withdraw(self, stream: Stream) -> None:
        with self._changed:
            self._queue.remove(stream)

    def _work(self) -> None:
        try:
            while batch := self._next_batch():
                self._decode(batch)
                del batch  # and with it audio, of hours perhaps, while the next one is awaited
        except BaseException as error:
            log.critical("the engine has failed", exc_info=error)
            self._fail(f"{type(error).__name__}: {error}")

    def _next_batch(self) -> list[Stream]:
        """The next batch, as soon as it is due; empty when the engine is stopping."""
        with self._changed:
            self._batch = []
            while not self._stopping and (left := self._queue.due() - time.monotonic()) > 0:
                self._changed.wait(None if left == math.inf else left)
            self._batch = self._queue.take()
        now = time.monotonic()
        for observer in self._observers if self._batch else ():
            waits = [now - stream.since for stream in self._batch]
            observer.batch_started(waits, sum(stream.utterance.seconds for stream in self._batch))
        return self._batch

    def _fail(self, reason: str) -> None:
        """Fail everything that was accepted, and decode no more."""
        with self._changed:
            self._failed = reason
            accepted = [*self._batch, *self._queue]
            self._queue, self._batch = Queue(self._queue.bounds), []
        for stream in accepted:
            stream.push(_failure(reason))
        for observer in self._observers:
            observer.failed(reason)

    def _decode(self, batch: Sequence[Stream]) -> None:
        """Decode a batch. If that fails, for want of memory or because of one of the utterances, decode its halves, so
        that in the end only those fail that fail alone. Those that have ended, cancelled or not, are left out."""
        batch = [stream for stream in batch if not stream.ended]
        if not batch:
            return
        try:
            decode_together(self.loaded, batch, self._observers)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to these utterances, not to the engine
            failure = error.with_traceback(None)  # which would hold on to the batch's tensors
        if len(batch) == 1:
            batch[0].push(self._explained(failure, batch[0].utterance))
            return
        self.device.empty_cache()
        self._decode(batch[: len(batch) // 2])
        self._decode(batch[len(batch) // 2 :])

    def _explained(self, failure: Exception, utterance: Utterance) -> Exception:
        """The failure of an utterance decoded alone, with the sizes if there was too little memory."""
        if not is_out_of_memory(failure):
            return failure
        memory = self.device.memory()
        return OutOfMemoryError(
            self.device.name,
            f"a segment of {utterance.seconds:.1f} s does not fit: {memory.used / 2**20:.0f} MiB of "
            f"{memory.total / 2**20:.0f} MiB are in use without it ({failure})",
            "lower ASR_SEGMENT_SECONDS, or free the device (npu-smi info)",
        )


@torch.inference_mode()
def decode_together(loaded: Loaded, batch: Sequence[Stream], observers: Sequence[Observer] = ()) -> None:
    """Decode a batch to its end; a row that has ended is answered, however long the others go on. Raises what the model
    raises, after which rows that have not ended are without an answer."""
    rows = [_BatchRow(stream, loaded) for stream in batch]
    steps = decode.decode(loaded, [stream.utterance for stream in batch])
    on_step = [observer.prefill_done for observer in observers]
    while not all(stream.ended for stream in batch):
        began = time.monotonic()
        tokens = next(steps)
        for report in on_step:
            report(time.monotonic() - began)
        on_step = [observer.decode_step for observer in observers]
        for row, token in zip(rows, tokens, strict=True):
            row.add(token)


@dataclass
class _BatchRow:
    """An utterance in a batch and its tokens so far."""

    stream: Stream
    loaded: Loaded
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of the end token, too

    def add(self, token: Token) -> None:
        """Add a token. After the end, also by cancelling, it is ignored."""
        if self.stream.ended:
            return
        self.logprobs.append(token.logprob)
        if token.id in self.loaded.tokenizer.end_tokens:
            self._finish(truncated=False)
            return
        self.tokens.append(token.id)
        self.stream.push_token(len(self.tokens), token.id)
        if len(self.tokens) >= self.stream.utterance.max_new_tokens:
            self._finish(truncated=True)

    def _finish(self, *, truncated: bool) -> None:
        text = self.loaded.tokenizer.text(self.tokens)
        self.stream.push(Decoded(tuple(self.tokens), text, truncated, statistics.fmean(self.logprobs)))


def _failure(reason: str) -> EngineError:
    return EngineError("engine", f"has failed: {reason}", "start it again; the log says where it failed")
