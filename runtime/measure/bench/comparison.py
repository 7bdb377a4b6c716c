"""The kit's engine beside qwen-asr's own `transcribe` and the first validation's script: same weights, same recordings,
one run, by turns.

All models are loaded at once, the kit's in this process, the others in one each, and a round has each transcribe the
same once, beginning with another one each time. A ratio is of one round, so that what slows a machine for a while slows
both. Each is given the same samples at 16 kHz; the kit cuts long audio into segments, as it does for its users, while
qwen-asr takes up to 20 minutes as one, for which it is allowed as many tokens as the kit for all segments together.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from env.errors import KitError
from runtime import audio
from runtime.audio import Audio
from runtime.audio.wav import wav_bytes
from runtime.measure.bench.baselines import FIRST_VALIDATION, INSTALL, KIT, QWEN_ASR, reads_files
from runtime.measure.bench.in_process import chosen, turns
from runtime.measure.bench.record import Absent, Bench, Found
from runtime.measure.bench.worker import (
    SIMULATED_NPU,
    Done,
    Job,
    WorkerProcess,
    environment,
    lack_of_memory,
    order,
    started,
    weights,
    without_kit,
)
from runtime.measure.statistics import figure
from runtime.measure.synthetic_audio import joined
from runtime.transcriber import FailedRequest, Request, Transcriber, limits

BATCH = (1.0, 2.0, 3.0, 4.2, 6.0, 9.0, 13.0, 20.0)  # seconds; of each at most a segment, so that each is one
LONG = 300.0  # seconds

BATCHES = (1, 8)  # utterances
SHORTEST, LONGER = 3.0, 0.5  # seconds: of the first utterance, and how much longer each further one is
TOKENS = 6  # that are decoded of each, at most; no text is shorter
DEVICE = "npu:0"


@dataclass(frozen=True)
class ComparisonCase:
    """Recordings that are transcribed together, so many rounds after some that do not count."""

    name: str
    sounds: tuple[Audio, ...]
    rounds: int
    warmups: int


def measure_versus(bench: Bench) -> Iterator[Found]:
    """Seconds, ratios to the kit's and tokens of each case. Of longer cases fewer rounds are made.

    Raises KitError where the model is not in this process.
    """
    size = weights(bench.transcriber)
    with ExitStack() as stack:
        children: dict[str, WorkerProcess] = {}
        for name in (QWEN_ASR, FIRST_VALIDATION):
            bench.tell(f"engines: loading {name}")
            try:
                children[name] = _loaded(name, bench.transcriber, size, stack)
            except KitError as error:
                yield Absent(f"engines@{name}", error.reason, error.advice)
        if children:
            for case in cases(bench):
                yield from compare(bench, case, children)


def cases(bench: Bench) -> Iterator[ComparisonCase]:
    """One clip, eight of different lengths, five minutes."""
    plan, settings = bench.plan, bench.transcriber.settings
    clip = audio.load(chosen(settings, plan.clip), limits=limits(settings))
    lengths = [min(seconds, settings.segment_seconds) for seconds in BATCH]
    batch = tuple(Audio(joined(seconds, first=number), f"{seconds} s") for number, seconds in enumerate(lengths))
    yield ComparisonCase("alone", (clip,), plan.runs, plan.warmups)
    yield ComparisonCase("batch", batch, max(1, plan.runs // 2), min(1, plan.warmups))
    yield ComparisonCase("long", (Audio(joined(LONG), f"{LONG:g} s"),), max(1, plan.runs // 5), min(1, plan.warmups))


def compare(bench: Bench, case: ComparisonCase, children: dict[str, WorkerProcess]) -> Iterator[Found]:
    """A case with the kit here and the children; one that fails is left out from there on."""
    with tempfile.TemporaryDirectory() as folder:
        job = _job(bench.transcriber, case, Path(folder))
        runs: dict[str, Callable[[], Done]] = {KIT: partial(_kit, bench.transcriber, case.sounds)}
        runs |= {name: partial(child.ask, job) for name, child in children.items()}
        done: dict[str, list[Done]] = {name: [] for name in runs}
        for number in range(case.warmups + case.rounds):
            bench.tell(f"engines: {case.name}, round {number + 1} of {case.warmups + case.rounds}")
            for name in turns(list(runs), number):
                try:
                    done[name].append(runs[name]())
                except KitError as error:
                    del runs[name]
                    yield Absent(f"engines@{case.name}/{name}", error.reason, error.advice)
    counted = {name: done[name][case.warmups :] for name in runs}
    for name, rounds in counted.items():
        key = f"engines/{case.name}/{name}"
        yield figure(key, [one.seconds for one in rounds], warmups=case.warmups)
        yield figure(f"{key}-tokens", [one.tokens for one in rounds], warmups=case.warmups)
        if name != KIT and KIT in counted:
            pairs = zip(rounds, counted[KIT], strict=True)
            ratios = [theirs.seconds / ours.seconds for theirs, ours in pairs]
            yield figure(f"{key}-ratio", ratios, warmups=case.warmups)


def _loaded(name: str, transcriber: Transcriber, size: int, stack: ExitStack) -> WorkerProcess:
    """Raises KitError where that cannot be had."""
    variables = environment(transcriber.device.silicon)
    if name == FIRST_VALIDATION:
        if not reads_files():
            reason = "reads its files with librosa, which the kit does without"
            raise KitError(name, reason, f"in a clone of the kit, then measure there: {INSTALL}")
        variables = without_kit(variables, transcriber.settings)
    if not transcriber.device.is_npu and (lack := lack_of_memory(size)):
        raise KitError(name, lack, "free memory, or measure a smaller model")
    return stack.enter_context(started(order(name, transcriber), variables))


def _job(transcriber: Transcriber, case: ComparisonCase, folder: Path) -> Job:
    """The recordings as files, and for each the limit of all the segments that the kit makes of one."""
    paths = [folder / f"{number}.wav" for number in range(len(case.sounds))]
    for path, sound in zip(paths, case.sounds, strict=True):
        path.write_bytes(wav_bytes(sound.samples, floats=True))
    segments = max(len(transcriber.prepare(Request(sound)).cuts) for sound in case.sounds)
    return Job(tuple(map(str, paths)), segments * transcriber.settings.max_new_tokens)


def _kit(transcriber: Transcriber, sounds: Sequence[Audio]) -> Done:
    """The kit, as its tasks transcribe several files. Raises KitError where one fails."""
    begun = time.perf_counter()
    outcomes = list(transcriber.transcribe_all(Request(sound) for sound in sounds))
    transcriber.device.synchronize()
    seconds = time.perf_counter() - begun
    tokens = 0
    for outcome in outcomes:
        if isinstance(outcome, FailedRequest):
            raise outcome.error
        tokens += outcome.tokens
    return Done(seconds, tokens)


def measure_host_cost(bench: Bench) -> Iterator[Found]:
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


def count(child: WorkerProcess, batch: int, prefix: str) -> Iterator[Found]:
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
        path.write_bytes(wav_bytes(joined(SHORTEST + number * LONGER, first=number), floats=True))
    return tuple(map(str, paths))
