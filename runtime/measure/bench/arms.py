"""What can transcribe beside the kit that runs here, each in a process of its own: `python -m` this module.

It reads an Order and then Jobs from standard input, JSON line by line, answers each, and ends with its input. What it
cannot do ends it; its last line on standard error says why.

- `kit`: the kit's engine, given all utterances at once.
- `qwen-asr`: `Qwen3ASRModel.transcribe`, given samples, in the kit's number format, with its limits and its settings of
  the device. Attention is what each chooses by itself: sdpa, for both.
- `first-validation`: see runtime/measure/bench/first_validation.py.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import soundfile

from env.errors import KitError
from env.sources import load_settings
from runtime.audio import SAMPLE_RATE, Audio
from runtime.engines import Decoded, Utterance
from runtime.measure.bench.child import READY, Done, Job, Order
from runtime.model.device import Device, open_device
from runtime.transcriber import Request, open_transcriber

KIT, QWEN_ASR, FIRST_VALIDATION = "kit", "qwen-asr", "first-validation"


class Arm(Protocol):
    """A loaded model and a way to transcribe with it."""

    device: Device

    def prepare(self, job: Job) -> Any:
        """What it is given, as far as making that is not part of the work."""

    def transcribe(self, prepared: Any) -> None:
        """The work."""

    def tokens(self) -> int:
        """How many it decoded."""


class Kit:
    """The kit's engine."""

    def __init__(self, order: Order, stack: ExitStack) -> None:
        variables = {"MODEL": order.checkpoint, "DEVICE": order.device, "DTYPE": order.dtype}
        settings = load_settings({f"ASR_{name}": value for name, value in variables.items()})
        settings = settings.model_copy(update={"max_batch": order.max_batch, "jit_compile": order.jit_compile})
        self._transcriber = stack.enter_context(open_transcriber(settings))
        self.device = self._transcriber.device
        self._decoded: list[Decoded] = []

    def prepare(self, job: Job) -> list[Utterance]:
        """Utterances, of which each segment is one."""
        sounds = [Audio(_samples(file), file) for file in job.files]
        utterances = [one for sound in sounds for one in self._transcriber.prepare(Request(sound)).spoken]
        return [replace(utterance, max_new_tokens=job.max_new_tokens) for utterance in utterances]

    def transcribe(self, prepared: list[Utterance]) -> None:
        """All at once."""
        self._decoded = [decoding.result() for decoding in self._transcriber.engine.submit(prepared)]

    def tokens(self) -> int:
        """Of all utterances."""
        return sum(len(decoded.tokens) for decoded in self._decoded)


class QwenAsr:
    """qwen-asr's `transcribe`."""

    def __init__(self, order: Order, _: ExitStack) -> None:
        self.device = open_device(order.device, exports={}, jit_compile=order.jit_compile)
        from runtime.measure.bench.qwen import Recognizer  # after the device, which torch must not precede

        self._recognizer = Recognizer(
            Path(order.checkpoint),
            end_tokens=order.end_tokens,
            dtype=order.dtype,
            device_map=self.device.name,
            max_inference_batch_size=order.max_batch,
        )

    def prepare(self, job: Job) -> tuple[list[tuple[Any, int]], int]:
        """Samples, each with its rate, and the limit."""
        return [(_samples(file), SAMPLE_RATE) for file in job.files], job.max_new_tokens

    def transcribe(self, prepared: tuple[list[tuple[Any, int]], int]) -> None:
        """One call for all."""
        sounds, limit = prepared
        self._recognizer.transcribe(sounds, max_new_tokens=limit)

    def tokens(self) -> int:
        """Of all utterances."""
        return sum(map(len, self._recognizer.tokens()))


class FirstValidation:
    """The first validation's script."""

    def __init__(self, order: Order, _: ExitStack) -> None:
        self.device = Device(order.device)
        if self.device.is_npu:
            import torch_npu  # noqa: F401 - makes torch know the device
        from runtime.measure.bench import first_validation

        self._script = first_validation
        self._model = first_validation.load(Path(order.checkpoint), order.device, order.end_tokens)

    def prepare(self, job: Job) -> list[Path]:
        """Paths."""
        return [Path(file) for file in job.files]

    def transcribe(self, prepared: list[Path]) -> None:
        """As the script does."""
        self._script.transcribe(self._model, prepared)

    def tokens(self) -> int:
        """Of all utterances."""
        return sum(map(len, self._model.tokens()))


ARMS: dict[str, Callable[[Order, ExitStack], Arm]] = {
    KIT: Kit,
    QWEN_ASR: QwenAsr,
    FIRST_VALIDATION: FirstValidation,
}


def main() -> None:
    """Do what standard input says."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints does not come between the answers

    def answer(words: Any) -> None:
        print(json.dumps(words), file=answers, flush=True)

    with ExitStack() as stack:
        order = Order(**json.loads(sys.stdin.readline()))
        arm = ARMS[order.arm](order, stack)
        answer(READY)
        for line in sys.stdin:
            answer(asdict(_done(arm, Job(**json.loads(line)))))


def _done(arm: Arm, job: Job) -> Done:
    prepared = arm.prepare(job)
    with _counting(arm.device) as counted:
        started = time.perf_counter()
        arm.transcribe(prepared)
        launches, waits = counted()
        arm.device.synchronize()
        seconds = time.perf_counter() - started
    return Done(seconds, arm.tokens(), launches, waits)


@contextmanager
def _counting(device: Device) -> Iterator[Callable[[], tuple[int, int]]]:
    """What tells launches and waits so far, on the simulated NPU; elsewhere none."""
    if device.silicon != "simulated NPU":
        yield lambda: (0, 0)
        return
    from torch_npu import simulation

    with simulation.measured() as spent:
        yield lambda: (spent().launches, spent().synchronisations)


def _samples(file: str) -> Any:
    """Mono float32 of shape (n,)."""
    samples, _ = soundfile.read(file, dtype="float32")
    return samples


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        sys.exit(str(error))
