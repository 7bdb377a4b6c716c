"""A process that transcribes as it is told, and the words that it is told in; its other end is arms.py beside this.

It loads once, then works only when asked, so that of several only one works at a time.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from env.errors import KitError
from env.sources import PROJECT
from runtime.transcriber import Transcriber, model_directory

PROGRAM = "runtime.measure.bench.baselines"
FAREWELL = 10.0  # seconds to end in by itself
READY = "ready"
NEEDED = 1.25  # times the weights: what a process holds beside them
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class WorkerSpec:
    """What shall transcribe, with which model, where. `arm` is a name of runtime/measure/bench/baselines.py;
    `end_tokens` are the checkpoint's; `max_batch` in utterances."""

    arm: str
    checkpoint: str
    device: str
    dtype: str
    end_tokens: tuple[int, ...]
    max_batch: int
    jit_compile: bool


@dataclass(frozen=True)
class Job:
    """Recordings to be transcribed in one call: WAV files at 16 kHz. `max_new_tokens` for each."""

    files: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Done:
    """How long that took in seconds, by the process's own clock, until the device was done, and the tokens decoded, end
    tokens left out."""

    seconds: float
    tokens: int


def order(arm: str, transcriber: Transcriber, *, device: str = "") -> WorkerSpec:
    """An order for the model that is loaded here, on the same device unless another is named."""
    settings = transcriber.settings
    return WorkerSpec(
        arm=arm,
        checkpoint=str(model_directory(settings)),
        device=device or transcriber.device.name,
        dtype=settings.dtype,
        end_tokens=transcriber.tokenizer.end_tokens,
        max_batch=settings.max_batch,
        jit_compile=settings.jit_compile,
    )


def environment() -> dict[str, str]:
    """Variables for a worker: this process's, offline."""
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def weights(transcriber: Transcriber) -> int:
    """Bytes of the weights of the model in this process. Raises KitError where it is in another."""
    return sum(weight.numel() * weight.element_size() for weight in transcriber.loaded.model.parameters())


def lack_of_memory(weights: int, *, models: int = 1) -> str:
    """Why the host cannot hold so many models more with so many bytes of weights; empty where it can, as far as it
    tells. A device is not asked: it refuses what it cannot hold, while a host that runs out ends processes."""
    needed = NEEDED * weights * models
    found = dict(line.split(":") for line in MEMORY.read_text(encoding="ascii").splitlines())
    free = int(found["MemAvailable"].split()[0]) * 1024
    if free >= needed:
        return ""
    more = "once" if models == 1 else f"{models} times"
    return f"needs {needed / 2**30:.1f} GiB for the model {more} more, the host has {free / 2**30:.1f} GiB available"


class WorkerProcess:
    """A process that is ready to transcribe."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", errors: IO[str]) -> None:
        self._name, self._process, self._errors = name, process, errors

    def ask(self, job: Job) -> Done:
        """Transcribe and wait for the end. Raises KitError where the process ends instead, with its last words."""
        return Done(**self.answer(asdict(job)))

    def answer(self, words: Mapping[str, Any]) -> Any:
        """What the process answers to something that it is told."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> KitError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        last = lines[-1] if lines else "no word"
        if code < 0:
            last = f"ended by {signal.Signals(-code).name}, which the system sends where memory is short ({last})"
        memory = "memory" in last.lower()
        return KitError(self._name, last, "free memory, or measure a smaller model" if memory else "")


@contextmanager
def started(order: WorkerSpec, variables: Mapping[str, str], *, program: str = PROGRAM) -> Iterator[WorkerProcess]:
    """A process of that program (a module's name) that has loaded what is ordered; ends it. Raises KitError where it
    cannot load."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", program],
            cwd=PROJECT,
            env=dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        )
        with process:
            try:
                child = WorkerProcess(order.arm, process, errors)
                assert child.answer(asdict(order)) == READY
                yield child
                process.stdin.close()  # type: ignore[union-attr]
                process.wait(FAREWELL)
            except subprocess.TimeoutExpired:
                pass
            finally:
                process.kill()
