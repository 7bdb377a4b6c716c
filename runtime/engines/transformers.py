"""The transformers engine: utterances wait in a queue; a worker thread takes those of like length and decodes them as
one batch with qwen-asr's `generate`.

Whole batches today: a batch ends when its longest answer ends.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from runtime.checkpoint import Loaded
from runtime.device import OutOfMemoryError, is_out_of_memory
from runtime.engines import Decoded, Status, Utterance


class Stream:
    """An utterance in the engine: the tokens decoded so far, and the end of it, a result or a failure."""

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        self.cancelled = False
        self._pushed = 0
        self._arrivals: SimpleQueue[int | Decoded | BaseException] = SimpleQueue()
        self._end: Decoded | BaseException | None = None

    def __iter__(self) -> Iterator[int]:
        """The tokens as they come, end tokens left out. A stream is read once, by one reader."""
        while self._end is None:
            arrival = self._arrivals.get()
            if isinstance(arrival, int):
                yield arrival
            else:
                self._end = arrival
        if isinstance(self._end, BaseException):
            raise self._end

    def result(self) -> Decoded:
        """Wait for the end; raises what made it fail, CancelledError after `cancel`."""
        for _ in self:
            pass
        if not isinstance(self._end, Decoded):
            raise RuntimeError("a stream ended without a result")
        return self._end

    def cancel(self) -> None:
        """Give up this utterance: it leaves the queue, or its batch as soon as the batch's next token is due."""
        self.cancelled = True

    def push_token(self, number: int, token: int) -> None:
        """The engine's side: token `number`, from 1. One that was there before a batch was decoded anew is left out."""
        if number > self._pushed:
            self._pushed = number
            self._arrivals.put(token)

    def push(self, end: Decoded | BaseException) -> None:
        """The engine's side: the end."""
        self._arrivals.put(end)


class TransformersEngine:
    """Decodes with a loaded checkpoint, up to `max_batch` utterances at a time."""

    def __init__(self, loaded: Loaded, *, max_batch: int) -> None:
        self._loaded = loaded
        self._max_batch = max_batch
        self._waiting: list[Stream] = []
        self._batch: list[Stream] = []
        self._stopping = False
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def submit(self, utterances: Sequence[Utterance]) -> Sequence[Stream]:
        """Hand over utterances; those handed over together may be decoded together from the start."""
        streams = [Stream(utterance) for utterance in utterances]
        with self._changed:
            if self._stopping:
                raise RuntimeError("the engine has stopped")
            self._waiting += streams
            self._changed.notify()
        return streams

    def status(self) -> Status:
        """What waits and what is being decoded."""
        with self._changed:
            return Status(len(self._waiting), len(self._batch), self._max_batch)

    def stop(self, *, drain: bool = True) -> None:
        """End the worker: after all that was accepted has been decoded or, without `drain`, at the next token."""
        with self._changed:
            self._stopping = True
            for stream in [] if drain else [*self._waiting, *self._batch]:
                stream.cancel()
            self._changed.notify()
        self._worker.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._decode(batch)

    def _next_batch(self) -> list[Stream]:
        """The utterance that waited longest and those nearest to it in length; empty when the engine shall end."""
        with self._changed:
            self._batch = []
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return []
            oldest = self._waiting[0].utterance.seconds
            likest = sorted(self._waiting, key=lambda stream: abs(stream.utterance.seconds - oldest))
            chosen = set(likest[: self._max_batch])
            batch = [stream for stream in self._waiting if stream in chosen]
            self._waiting = [stream for stream in self._waiting if stream not in chosen]
            self._batch = batch
            return batch

    def _decode(self, batch: Sequence[Stream]) -> None:
        """Decode a batch. If that fails, for want of memory or because of one of the utterances, decode its halves, so
        that in the end only those fail that fail alone."""
        for stream in batch:
            if stream.cancelled:
                stream.push(CancelledError())
        batch = [stream for stream in batch if not stream.cancelled]
        if not batch:
            return
        try:
            for stream, decoded in zip(batch, self._generate(batch), strict=True):
                stream.push(CancelledError() if stream.cancelled else decoded)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to these utterances, not to the engine
            failure = error.with_traceback(None)  # which would hold on to the batch's tensors
        if len(batch) == 1:
            batch[0].push(self._explained(failure, batch[0].utterance))
            return
        self._loaded.device.empty_cache()
        self._decode(batch[: len(batch) // 2])
        self._decode(batch[len(batch) // 2 :])

    def _explained(self, failure: Exception, utterance: Utterance) -> Exception:
        """The failure of an utterance decoded alone, with the sizes if there was too little memory."""
        if not is_out_of_memory(failure):
            return failure
        memory = self._loaded.device.memory()
        return OutOfMemoryError(
            self._loaded.device.name,
            f"a segment of {utterance.seconds:.1f} s does not fit: {memory.used / 2**20:.0f} MiB of "
            f"{memory.total / 2**20:.0f} MiB are in use without it ({failure})",
            "lower ASR_SEGMENT_SECONDS, or free the device (npu-smi info)",
        )

    @torch.inference_mode()
    def _generate(self, batch: Sequence[Stream]) -> list[Decoded]:
        loaded, utterances = self._loaded, [stream.utterance for stream in batch]
        inputs = loaded.processor(
            text=[utterance.prompt for utterance in utterances],
            audio=[utterance.samples for utterance in utterances],
            return_tensors="pt",
            padding=True,
        )
        inputs = inputs.to(loaded.device.name).to(loaded.model.dtype)  # features come as float32
        answers = _Answers(batch, loaded.end_tokens, loaded.device.name)
        loaded.model.generate(
            **inputs,
            max_new_tokens=max(utterance.max_new_tokens for utterance in utterances),
            eos_token_id=list(loaded.end_tokens),
            pad_token_id=loaded.pad_token,
            streamer=answers,
            stopping_criteria=StoppingCriteriaList([answers.given_up]),
        )
        return [
            Decoded(tuple(answer.tokens), self._text(answer.tokens), truncated=not answer.complete)
            for answer in answers.rows
        ]

    def _text(self, tokens: list[int]) -> str:
        text: str = self._loaded.processor.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


@dataclass
class _Answer:
    """A row of the batch: its tokens so far, whether it is over, and whether it came to its own end."""

    stream: Stream
    tokens: list[int]
    over: bool = False
    complete: bool = False


class _Answers(BaseStreamer):
    """Follows a batch token by token: passes them on, and ends rows at their own limit or when cancelled."""

    def __init__(self, batch: Sequence[Stream], end_tokens: tuple[int, ...], device: str) -> None:
        self.rows = [_Answer(stream, []) for stream in batch]
        self._end_tokens = frozenset(end_tokens)
        self._device = device
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """`generate` hands over the prompt first, then each step's tokens, (batch,), already on the host."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for row, token in zip(self.rows, value.tolist(), strict=True):
            if row.over:
                continue
            if token in self._end_tokens:
                row.over = row.complete = True
                continue
            row.tokens.append(token)
            row.stream.push_token(len(row.tokens), token)
            row.over = len(row.tokens) >= row.stream.utterance.max_new_tokens

    def end(self) -> None:
        """`generate` has ended; what each row became is known by its tokens."""

    @property
    def given_up(self) -> "_GivenUp":
        """Tells `generate` which rows are over: at an end token, at their own limit or cancelled."""
        return _GivenUp(self.rows, self._device)


class _GivenUp(StoppingCriteria):
    def __init__(self, rows: Sequence[_Answer], device: str) -> None:
        self._rows, self._device = rows, device

    def __call__(self, *_: Any, **__: Any) -> torch.Tensor:
        """(batch,), true where a row shall not be decoded further."""
        return torch.tensor([row.over or row.stream.cancelled for row in self._rows], device=self._device)
