"""The kit's engine beside qwen-asr's own `transcribe`: same weights, same recordings, one run, by turns.

Both models are loaded at once, the kit's in this process, the other in one of its own, and a round has each transcribe
the same once, beginning with another one each time. A ratio is of one round, so that what slows a machine for a while
slows both. Each is given the same samples at 16 kHz; the kit cuts long audio into segments, as it does for its users,
while qwen-asr takes up to 20 minutes as one, for which it is allowed as many tokens as the kit for all segments
together.
"""

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
from runtime.measure.bench.baselines import KIT, QWEN_ASR
from runtime.measure.bench.in_process import chosen, turns
from runtime.measure.bench.record import Absent, Bench, Found
from runtime.measure.bench.worker import (
    Done,
    Job,
    WorkerProcess,
    environment,
    lack_of_memory,
    order,
    started,
    weights,
)
from runtime.measure.statistics import figure
from runtime.measure.synthetic_audio import joined
from runtime.transcriber import FailedRequest, Request, Transcriber, limits

BATCH = (1.0, 2.0, 3.0, 4.2, 6.0, 9.0, 13.0, 20.0)  # seconds; of each at most a segment, so that each is one
LONG = 300.0  # seconds


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
    bench.tell(f"engines: loading {QWEN_ASR}")
    with ExitStack() as stack:
        try:
            check_memory(QWEN_ASR, bench.transcriber, size)
            worker = stack.enter_context(started(order(QWEN_ASR, bench.transcriber), environment()))
        except KitError as error:
            yield Absent(f"engines@{QWEN_ASR}", error.reason, error.advice)
            return
        for case in cases(bench):
            yield from compare(bench, case, {QWEN_ASR: worker})


def cases(bench: Bench) -> Iterator[ComparisonCase]:
    """One clip, eight of different lengths, five minutes."""
    plan, settings = bench.plan, bench.transcriber.settings
    clip = audio.load(chosen(settings, plan.clip), limits=limits(settings))
    lengths = [min(seconds, settings.segment_seconds) for seconds in BATCH]
    batch = tuple(Audio(joined(seconds, first=number), f"{seconds} s") for number, seconds in enumerate(lengths))
    yield ComparisonCase("alone", (clip,), plan.runs, plan.warmups)
    yield ComparisonCase("batch", batch, max(1, plan.runs // 2), min(1, plan.warmups))
    yield ComparisonCase("long", (Audio(joined(LONG), f"{LONG:g} s"),), max(1, plan.runs // 5), min(1, plan.warmups))


def compare(bench: Bench, case: ComparisonCase, workers: dict[str, WorkerProcess]) -> Iterator[Found]:
    """A case with the kit here and the workers; one that fails is left out from there on."""
    with tempfile.TemporaryDirectory() as folder:
        job = _job(bench.transcriber, case, Path(folder))
        runs: dict[str, Callable[[], Done]] = {KIT: partial(_kit, bench.transcriber, case.sounds)}
        runs |= {name: partial(worker.ask, job) for name, worker in workers.items()}
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


def check_memory(name: str, transcriber: Transcriber, size: int) -> None:
    """Raises KitError where the host cannot hold that many bytes of weights once more, beside the loaded model."""
    if not transcriber.device.is_npu and (lack := lack_of_memory(size)):
        raise KitError(name, lack, "free memory, or measure a smaller model")


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
