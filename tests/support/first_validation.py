"""The first validation's script, rebuilt from what is known of it, beside the kit's engine and qwen-asr's `transcribe`.

It had qwen-asr read its files with librosa, which the kit does without: that is taken from .reference, or from where it
is installed. Run as a program, this module is the process that transcribes so.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from env.errors import KitError
from env.field import note
from env.settings import Settings
from env.sources import PROJECT
from runtime.measure.bench import baselines
from runtime.measure.bench.baselines import ARMS, QWEN_ASR, UNUSED, Recognizer
from runtime.measure.bench.comparison import cases, check_memory, compare
from runtime.measure.bench.record import Absent, Bench, Found
from runtime.measure.bench.worker import Job, WorkerProcess, WorkerSpec, environment, order, started, weights
from runtime.model.device import Device

PROGRAM = "first_validation"
FIRST_VALIDATION = "first-validation"
REFERENCE = PROJECT / ".reference"
READER = "librosa"
INSTALL = "make .reference/installed"
MAX_NEW_TOKENS = 256


class FirstValidation:
    """The script: bfloat16, one call for all files, at most 256 tokens of each."""

    def __init__(self, order: WorkerSpec, _: ExitStack) -> None:
        self.device = Device(order.device)
        if self.device.is_npu:
            import torch_npu  # noqa: F401 - makes torch know the device
        import torch

        if REFERENCE.is_dir():
            sys.path.append(str(REFERENCE))
        self._model = Recognizer(
            Path(order.checkpoint),
            end_tokens=order.end_tokens,
            unused=[name for name in UNUSED if name != READER],
            dtype=torch.bfloat16,
            device_map=order.device,
            max_new_tokens=MAX_NEW_TOKENS,
        )

    def prepare(self, job: Job) -> list[str]:
        """The files' paths, which the script hands over as they are."""
        return list(job.files)

    def transcribe(self, prepared: list[str]) -> None:
        """One call for all files."""
        self._model.transcribe(prepared)

    def tokens(self) -> int:
        """How many were decoded of all files."""
        return sum(map(len, self._model.tokens()))


def measure(bench: Bench) -> Iterator[Found]:
    """As the benchmark's part `engines`, with the first validation's script as one more.

    Raises KitError where the model is not in this process.
    """
    size = weights(bench.transcriber)
    with ExitStack() as stack:
        workers: dict[str, WorkerProcess] = {}
        for name in (QWEN_ASR, FIRST_VALIDATION):
            bench.tell(f"engines: loading {name}")
            try:
                workers[name] = _loaded(name, bench, size, stack)
            except KitError as error:
                yield Absent(f"engines@{name}", error.reason, error.advice)
        if workers:
            for case in cases(bench):
                yield from compare(bench, case, workers)


def reads_files() -> bool:
    """Whether librosa is there, which qwen-asr needs for files."""
    return (REFERENCE / READER).is_dir() or importlib.util.find_spec(READER) is not None


def without_kit(variables: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The variables less those that the kit sets for torch_npu, CANN and OpenMP, unless under their own names."""
    fields = type(settings).model_fields.items()
    of_the_kit = {note(field, "exports") for name, field in fields if ", " not in settings.origin(name)}
    return {name: value for name, value in variables.items() if name not in of_the_kit}


def _loaded(name: str, bench: Bench, size: int, stack: ExitStack) -> WorkerProcess:
    """Raises KitError where that cannot be had."""
    transcriber = bench.transcriber
    if name == FIRST_VALIDATION and not reads_files():
        reason = "reads its files with librosa, which the kit does without"
        raise KitError(name, reason, f"in a clone of the kit, then measure there: {INSTALL}")
    check_memory(name, transcriber, size)
    if name != FIRST_VALIDATION:
        return stack.enter_context(started(order(name, transcriber), environment()))
    variables = without_kit(environment(), transcriber.settings)
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), variables.get("PYTHONPATH")]))
    return stack.enter_context(started(order(name, transcriber), variables, program=PROGRAM))


if __name__ == "__main__":
    baselines.main({**ARMS, FIRST_VALIDATION: FirstValidation})
