"""qwen-asr's own `Qwen3ASRModel`, to be compared with the kit's engine. Only for processes of their own, as it
changes how packages are found.

`import qwen_asr` wants two packages that the kit does without: nagisa, which only its forced aligner calls, and
librosa, which it reads and resamples files with. Bare modules hold their places during the import, as transcribing
samples of 16 kHz calls neither; so qwen-asr runs wherever the kit does.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import soundfile

from env.errors import KitError
from env.sources import load_settings
from runtime.audio import SAMPLE_RATE, Audio
from runtime.engines import Decoded, Utterance
from runtime.measure.bench.worker import READY, Done, Job, WorkerSpec
from runtime.model.device import Device, open_device
from runtime.transcriber import Request, open_transcriber

UNUSED = ("nagisa", "librosa")  # imported by qwen-asr, called for its aligner and to read files
KIT, QWEN_ASR = "kit", "qwen-asr"


class Recognizer:
    """A loaded `Qwen3ASRModel`; `options` are those of its `from_pretrained`. It takes paths only where librosa is
    installed and not among the packages that are stood in for, `unused`.

    Its `generate` has the end tokens of the real model written into it. Here it is given the checkpoint's, which for
    the real model are the same two, and for the demo model are what lets it end at all.
    """

    def __init__(
        self, checkpoint: Path, *, end_tokens: Sequence[int], unused: Sequence[str] = UNUSED, **options: Any
    ) -> None:
        self._model = _model_class(unused).from_pretrained(str(checkpoint), **options)
        self._end_tokens = list(end_tokens)
        self._generate = self._model.model.generate
        self._model.model.generate = self._recorded
        self._rows: list[Any] = []  # tensors of tokens, read only when asked for: reading waits for the device

    @property
    def tower(self) -> Any:
        """Its audio encoder."""
        return self._model.model.thinker.audio_tower

    def transcribe(self, audio: Any, *, language: str | None = None, max_new_tokens: int | None = None) -> list[Any]:
        """What its own `transcribe` answers: a result with `text` and `language` for each of `audio`, which is as it
        takes it: paths, or pairs of samples and rate. `max_new_tokens` None: as before."""
        self._rows.clear()
        if max_new_tokens is not None:
            self._model.max_new_tokens = max_new_tokens
        results: list[Any] = self._model.transcribe(audio, language=language)
        return results

    def tokens(self) -> list[tuple[int, ...]]:
        """What the last call decoded of each of its utterances, without end tokens."""
        rows = itertools.chain.from_iterable(batch.tolist() for batch in self._rows)
        return [tuple(itertools.takewhile(lambda token: token not in self._end_tokens, row)) for row in rows]

    def _recorded(self, **inputs: Any) -> Any:
        output = self._generate(**inputs, eos_token_id=self._end_tokens)
        self._rows.append(output.sequences[:, inputs["input_ids"].shape[1] :])
        return output


def _model_class(unused: Sequence[str]) -> Any:
    """`qwen_asr.inference.qwen3_asr.Qwen3ASRModel`, imported with bare modules in place of the `unused` packages."""
    import transformers  # noqa: F401 - looks what is installed, and must not see the bare modules

    held = {name: ModuleType(name) for name in unused if name not in sys.modules}
    sys.modules.update(held)
    try:
        from qwen_asr.inference.qwen3_asr import Qwen3ASRModel
    finally:
        for name in held:
            del sys.modules[name]
    return Qwen3ASRModel


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

    def __init__(self, order: WorkerSpec, stack: ExitStack) -> None:
        variables = {"MODEL": order.checkpoint, "DEVICE": order.device, "DTYPE": order.dtype}
        settings = load_settings({f"ASR_{name}": value for name, value in variables.items()})
        settings = settings.model_copy(update={"max_batch": order.max_batch, "jit_compile": order.jit_compile})
        self._transcriber = stack.enter_context(open_transcriber(settings))
        self.device = self._transcriber.device
        self._decoded: list[Decoded] = []

    def prepare(self, job: Job) -> list[Utterance]:
        """Utterances, of which each segment is one."""
        sounds = [Audio(read_samples(file), file) for file in job.files]
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

    def __init__(self, order: WorkerSpec, _: ExitStack) -> None:
        self.device = open_device(order.device, exports={}, jit_compile=order.jit_compile)
        pass  # DROP  # after the device, which torch must not precede

        self._recognizer = Recognizer(
            Path(order.checkpoint),
            end_tokens=order.end_tokens,
            dtype=order.dtype,
            device_map=self.device.name,
            max_inference_batch_size=order.max_batch,
        )

    def prepare(self, job: Job) -> tuple[list[tuple[Any, int]], int]:
        """Samples, each with its rate, and the limit."""
        return [(read_samples(file), SAMPLE_RATE) for file in job.files], job.max_new_tokens

    def transcribe(self, prepared: tuple[list[tuple[Any, int]], int]) -> None:
        """One call for all."""
        sounds, limit = prepared
        self._recognizer.transcribe(sounds, max_new_tokens=limit)

    def tokens(self) -> int:
        """Of all utterances."""
        return sum(map(len, self._recognizer.tokens()))


def timed(arm: Arm, job: Job) -> Done:
    """Transcribe, and tell how long that took."""
    prepared = arm.prepare(job)
    started = time.perf_counter()
    arm.transcribe(prepared)
    arm.device.synchronize()
    return Done(time.perf_counter() - started, arm.tokens())


ARMS: dict[str, Callable[[WorkerSpec, ExitStack], Arm]] = {
    KIT: Kit,
    QWEN_ASR: QwenAsr,
}


def main(
    arms: Mapping[str, Callable[[WorkerSpec, ExitStack], Arm]] = ARMS, work: Callable[[Arm, Job], Any] = timed
) -> None:
    """Load the arm and do the jobs that standard input names; `work` answers each with a dataclass. A fault that was
    foreseen ends the process in one line."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints does not come between the answers

    def answer(words: Any) -> None:
        print(json.dumps(words), file=answers, flush=True)

    try:
        with ExitStack() as stack:
            order = WorkerSpec(**json.loads(sys.stdin.readline()))
            arm = arms[order.arm](order, stack)
            answer(READY)
            for line in sys.stdin:
                answer(asdict(work(arm, Job(**json.loads(line)))))
    except KitError as error:
        sys.exit(str(error))


def read_samples(file: str) -> Any:
    """Mono float32 of shape (n,)."""
    samples, _ = soundfile.read(file, dtype="float32")
    return samples


if __name__ == "__main__":
    main()
