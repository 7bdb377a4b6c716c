"""Kernels launched and waits for the device per token, of the kit's engine and of qwen-asr's: counted on the simulated
NPU, in a process each. Run as a program, this module is that process."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from env.errors import KitError
from env.sources import PROJECT
from runtime.audio.wav import wav_bytes
from runtime.measure.bench import baselines
from runtime.measure.bench.baselines import KIT, QWEN_ASR, Arm
from runtime.measure.bench.record import Absent, Bench, Found
from runtime.measure.bench.worker import Job, WorkerProcess, environment, lack_of_memory, order, started, weights
from runtime.measure.statistics import figure
from runtime.measure.synthetic_audio import joined

PROGRAM = "host_cost"
STAND_IN = PROJECT / "tests" / "simulated_npu"  # the directory that holds torch_npu
BATCHES = (1, 8)  # utterances
SHORTEST, LONGER = 3.0, 0.5  # seconds: of the first utterance, and how much longer each further one is
TOKENS = 6  # that are decoded of each, at most; no text is shorter
DEVICE = "npu:0"


@dataclass(frozen=True)
class HostCost:
    """Kernels launched, waits for the device, and tokens decoded, end tokens left out."""

    launches: int
    waits: int
    tokens: int


def measure(bench: Bench) -> Iterator[Found]:
    """Counts for each batch: of the first token an utterance, and of each further step, which is a token of each.

    Raises KitError where the model is not in this process.
    """
    size = weights(bench.transcriber)
    for name, prefix in ((KIT, "host/"), (QWEN_ASR, "host/qwen-asr-")):
        bench.tell(f"host: loading {name} on the simulated NPU")
        try:
            if lack := lack_of_memory(size):
                raise KitError(name, lack, "free memory, or measure a smaller model")
            wanted = order(name, bench.transcriber, device=DEVICE)
            with started(wanted, simulated_npu(), program=PROGRAM) as worker:
                for batch in BATCHES:
                    bench.tell(f"host: {name}, {batch} together")
                    yield from count(worker, batch, prefix)
        except KitError as error:
            yield Absent(f"host@{name}", error.reason, error.advice)


def simulated_npu() -> dict[str, str]:
    """Variables for a worker that finds this module, and the stand-in for torch_npu."""
    found = environment()
    path = [str(STAND_IN), str(Path(__file__).parent), *filter(None, [found.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(path)}


def count(worker: WorkerProcess, batch: int, prefix: str) -> Iterator[Found]:
    """Decode the same utterances up to 1 token, up to 2 and so on: each costs a step more than the one before.

    Raises KitError where a text ends before that.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = _files(batch, Path(folder))
        costs = [HostCost(**worker.answer(asdict(Job(files, tokens)))) for tokens in range(1, TOKENS + 1)]
    if any(one.tokens != batch * tokens for tokens, one in enumerate(costs, 1)):
        raise KitError("the speech", f"has utterances of fewer than {TOKENS} tokens", "measure another model")
    for name in ("launches", "waits"):
        counts = [getattr(one, name) for one in costs]
        steps = [after - before for before, after in itertools.pairwise(counts)]
        yield figure(f"{prefix}{name}", steps, at=batch)
        yield figure(f"{prefix}first-{name}", [counts[0] / batch], at=batch)


def _files(batch: int, folder: Path) -> tuple[str, ...]:
    """Utterances of different lengths."""
    paths = [folder / f"{number}.wav" for number in range(batch)]
    for number, path in enumerate(paths):
        path.write_bytes(wav_bytes(joined(SHORTEST + number * LONGER, first=number), floats=True))
    return tuple(map(str, paths))


def counted(arm: Arm, job: Job) -> HostCost:
    """Transcribe where torch_npu is the stand-in, and tell what it counted."""
    from torch_npu import simulation

    prepared = arm.prepare(job)
    with simulation.measured() as spent:
        arm.transcribe(prepared)
        launches, waits = spent().launches, spent().synchronisations
    arm.device.synchronize()
    return HostCost(launches, waits, arm.tokens())


if __name__ == "__main__":
    baselines.main(work=counted)
