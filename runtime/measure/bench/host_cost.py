"""What decoding asks of the host: kernels launched and waits for the device, of the kit's engine and of qwen-asr's
`transcribe`.

Both are the same on any machine, so they are counted on the simulated NPU of the kit's tests, whatever this runs on,
one after the other in processes of their own. Decoding small batches on an NPU takes as long as its launches; so this
foretells what a change to the engine is worth, without an NPU.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import soundfile

from env.errors import KitError
from runtime.audio import SAMPLE_RATE
from runtime.measure.bench import Absent, Bench, Found
from runtime.measure.bench.arms import KIT, QWEN_ASR
from runtime.measure.bench.child import (
    SIMULATED_NPU,
    Child,
    Done,
    Job,
    environment,
    lack_of_memory,
    order,
    started,
    weights,
)
from runtime.measure.figures import figure
from runtime.measure.speech import joined

BATCHES = (1, 8)  # utterances
SHORTEST, LONGER = 3.0, 0.5  # seconds: of the first utterance, and how much longer each further one is
TOKENS = 6  # that are decoded of each, at most; no text is shorter
DEVICE = "npu:0"


def measure(bench: Bench) -> Iterator[Found]:
    """Counts for each batch: of the first token an utterance, and of each further step, which is a token of each.

    Raises KitError where the model is not in this process.
    """
    size = weights(bench.transcriber)
    if not SIMULATED_NPU.is_dir():
        reason = "the simulated NPU is in the tests of the kit's clone, not here"
        yield Absent("host", reason, "in a clone of the kit: make install, then invoke bench with the same ASR_MODEL")
        return
    for name, prefix in ((KIT, "host/"), (QWEN_ASR, "host/qwen-asr-")):
        bench.tell(f"host: loading {name} on the simulated NPU")
        try:
            if lack := lack_of_memory(size):
                raise KitError(name, lack, "free memory, or measure a smaller model")
            wanted = order(name, bench.transcriber, device=DEVICE)
            with started(wanted, environment("simulated NPU")) as child:
                for batch in BATCHES:
                    bench.tell(f"host: {name}, {batch} together")
                    yield from count(child, batch, prefix)
        except KitError as error:
            yield Absent(f"host@{name}", error.reason, error.advice)


def count(child: Child, batch: int, prefix: str) -> Iterator[Found]:
    """Decode the same utterances up to 1 token, up to 2 and so on: each costs a step more than the one before.

    Raises KitError where a text ends before that.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = _files(batch, Path(folder))
        done = [child.ask(Job(files, tokens)) for tokens in range(1, TOKENS + 1)]
    if any(one.tokens != batch * tokens for tokens, one in enumerate(done, 1)):
        raise KitError("the speech", f"has utterances of fewer than {TOKENS} tokens", "measure another model")
    yield from _figures(done, batch, prefix)


def _figures(done: list[Done], batch: int, prefix: str) -> Iterator[Found]:
    for name in ("launches", "waits"):
        counts = [getattr(one, name) for one in done]
        steps = [after - before for before, after in itertools.pairwise(counts)]
        yield figure(f"{prefix}{name}", steps, at=batch)
        yield figure(f"{prefix}first-{name}", [counts[0] / batch], at=batch)


def _files(batch: int, folder: Path) -> tuple[str, ...]:
    """Utterances of different lengths."""
    paths = [folder / f"{number}.wav" for number in range(batch)]
    for number, path in enumerate(paths):
        soundfile.write(path, joined(SHORTEST + number * LONGER, first=number), SAMPLE_RATE, subtype="FLOAT")
    return tuple(map(str, paths))
