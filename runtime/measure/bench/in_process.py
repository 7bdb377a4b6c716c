"""The clip that the benchmark hears."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from env.errors import KitError
from env.settings import Settings
from runtime import audio
from runtime.audio import Limits
from runtime.demo import bundled_clips
from runtime.engines import Decoded, Utterance
from runtime.measure.bench.record import Absent, Bench, Found
from runtime.measure.statistics import figure
from runtime.model.device import Device, is_out_of_memory
from runtime.transcriber import Prepared, Request, Transcriber
from runtime.weights import catalog
from runtime.weights.catalog import place

OFFICIAL = "asr_zh.wav"  # of env/weights.toml; the first validation timed it
SECONDS = 4.2  # its length

# Audio: from bytes to samples and prompt. Encoder: until the audio is in its places in the prompt. Prefill: until the
# first token is read. Tokens: until the last is. Text: until it is the transcript's.
STAGES = ("audio", "features", "encoder", "prefill", "tokens", "text")

Result = TypeVar("Result")
Size = TypeVar("Size", int, float)

# What a measurement may fail of: foreseen failures, and what torch and torch_npu raise.
FAILURES = (KitError, RuntimeError, MemoryError)

if TYPE_CHECKING:
    pass

RUNS, WARMUPS = 5, 1  # of each batch, unless the plan has fewer


def chosen(settings: Settings, wanted: Path | None = None) -> Path:
    """The clip wanted, else the official one of 4.2 s if it was fetched, else the bundled one of about its length."""
    if wanted:
        return wanted
    official = place(settings, catalog.load()).clips / OFFICIAL
    if official.is_file():
        return official
    spoken = [clip.path for clip in bundled_clips() if clip.language]
    return min(spoken, key=lambda path: abs(audio.load(path, limits=Limits()).seconds - SECONDS))


def only(prepared: Prepared) -> Utterance:
    """The one utterance of a clip. Raises KitError where it is silent, or so long that it is cut into several."""
    source = prepared.audio.source
    if not prepared.spoken:
        raise KitError(source, "is silent, and the model is not asked about silence", "give a --clip with speech")
    if len(prepared.cuts) > 1:
        reason = f"is cut into {len(prepared.cuts)} segments, and this is measured of one"
        raise KitError(source, reason, "give a shorter --clip, or raise ASR_SEGMENT_SECONDS")
    return prepared.spoken[0]


def utterance(transcriber: Transcriber, path: Path) -> Utterance:
    """The one utterance of a file. Raises KitError like `only`, and where the file cannot be used."""
    return only(transcriber.prepare(Request(path)))


@dataclass(frozen=True)
class Split:
    """The seconds of each of STAGES, the steps of the decoder after the prefill, which are for the token that ends the
    text, too, the tokens without that one, and their text."""

    seconds: tuple[float, ...]
    steps: int
    count: int
    text: str


def split(transcriber: Transcriber, file: bytes) -> Split:
    """Transcribe a file of one utterance, stage by stage. Raises KitError where the model is not in this process."""
    import torch  # which the device must precede, so not with this module

    from runtime.engines import decode

    loaded, laps = transcriber.loaded, [time.perf_counter()]

    def lap() -> None:
        transcriber.device.synchronize()
        laps.append(time.perf_counter())

    prepared = transcriber.prepare(Request(file))
    utterance = only(prepared)
    lap()
    with torch.inference_mode():
        inputs = decode.features(loaded, [utterance])
        lap()
        embedded = decode.embed(loaded, inputs)
        lap()
        state = decode.prefill(loaded, embedded)
        tokens = [token.id for token in state.next_tokens()]
        lap()
        while tokens[-1] not in loaded.tokenizer.end_tokens and len(tokens) < utterance.max_new_tokens:
            state.advance()
            tokens += [token.id for token in state.next_tokens()]
        lap()
    steps, truncated = len(tokens) - 1, tokens[-1] not in loaded.tokenizer.end_tokens
    if not truncated:
        tokens.pop()
    decoded = Decoded(tuple(tokens), transcriber.tokenizer.text(tokens), truncated)
    text = prepared.to_transcript(prepared.to_segment(cut, decoded) for cut in prepared.cuts).text
    lap()
    return Split(tuple(after - before for before, after in itertools.pairwise(laps)), steps, len(tokens), text)


def figures(splits: Sequence[Split], warmups: int) -> Iterator[Found]:
    """The stages of all passes, and the sums of each pass's."""
    for number, name in enumerate(STAGES):
        yield figure(f"latency/{name}", [one.seconds[number] for one in splits], warmups=warmups)
    tokens = STAGES.index("tokens")
    if all(one.steps for one in splits):
        yield figure("latency/token", [one.seconds[tokens] / one.steps for one in splits], warmups=warmups)
    else:
        yield Absent("latency/token", "the first token ended the text")
    yield figure("latency/split", [sum(one.seconds) for one in splits], warmups=warmups)
    yield figure("latency/count", [one.count for one in splits], warmups=warmups)


def timed(device: Device, work: Callable[[], Result]) -> tuple[float, Result]:
    """The seconds that work takes until the device has done it, too; and its result."""
    began = time.perf_counter()
    result = work()
    device.synchronize()
    return time.perf_counter() - began, result


def ascending(
    part: str, sizes: Sequence[Size], device: Device, measured: Callable[[Size], Iterable[Found]]
) -> Iterator[Found]:
    """What `measured` finds of each size, the smallest first. One that fails is absent, and so are all that are larger:
    they would need more memory still."""
    failed: Size | None = None
    for size in sorted(sizes):
        what = f"{part}@{size:g}"
        if failed is not None:
            yield Absent(what, f"not tried, as {failed:g} failed", "see there")
            continue
        try:
            yield from tuple(measured(size))
        except FAILURES as error:
            yield absent(what, error)
            failed = size
        device.empty_cache()


def turns(names: Sequence[str], number: int) -> list[str]:
    """The names in the order of round `number`: each round begins with another one."""
    first = number % len(names) if names else 0
    return [*names[first:], *names[:first]]


def absent(what: str, error: BaseException) -> Absent:
    """Why something was not measured, of one of FAILURES."""
    if isinstance(error, KitError):
        return Absent(what, f"{error.subject}: {error.reason}", error.advice)
    first = str(error).strip().partition("\n")[0]
    if is_out_of_memory(error):
        return Absent(what, f"out of memory: {first}", "see what else holds the device's memory: npu-smi info")
    return Absent(what, f"{type(error).__name__}: {first}")


def cut_short(what: str, truncated: bool, settings: Settings) -> Iterator[Absent]:
    """That the limit of tokens ended what was measured, if it did."""
    if truncated:
        reason = f"ASR_MAX_NEW_TOKENS={settings.max_new_tokens} cut the answer off: measured is up to there"
        yield Absent(what, reason, "raise it, unless the weights are random: what they answer never ends")


@dataclass
class Passes:
    """What was measured so far: seconds of the whole, pairs of the stream's, to the first token and from there to the
    end, and the stages. `truncated`: the last answer was cut off."""

    wholes: list[float] = field(default_factory=list)
    streams: list[tuple[float, float]] = field(default_factory=list)
    splits: "list[Split]" = field(default_factory=list)
    truncated: bool = False


def measure_latency(bench: Bench) -> Iterator[Found]:
    """The part `latency`. Raises KitError for a clip that is silent or cannot be read."""
    transcriber, plan = bench.transcriber, bench.plan
    path = chosen(transcriber.settings, plan.clip)
    prepared = transcriber.prepare(Request(path))
    if not prepared.spoken:
        only(prepared)
    reasons = dict(_hindrances(transcriber, prepared))
    for what, error in reasons.items():
        yield absent(what, error)
    passes = Passes()
    try:
        for number in range(plan.warmups + plan.runs):
            bench.tell(f"latency: {number + 1} of {plan.warmups + plan.runs}")
            _pass(transcriber, path.read_bytes(), passes, reasons)
    except FAILURES as error:
        yield absent("latency", error)
        return
    yield from _figures(passes, prepared.audio.seconds, plan.warmups)
    yield from cut_short("latency/whole-text", passes.truncated, transcriber.settings)


def _hindrances(transcriber: Transcriber, prepared: Prepared) -> Iterator[tuple[str, KitError]]:
    """What cannot be measured of this clip, or with this engine, and why."""
    for what, look in (
        ("latency/first-token", lambda: only(prepared)),
        ("latency/split", lambda: (only(prepared), transcriber.loaded)),
    ):
        try:
            look()
        except KitError as error:
            yield what, error


def _pass(transcriber: Transcriber, file: bytes, passes: Passes, hindered: dict[str, KitError]) -> None:
    seconds, whole = timed(transcriber.device, lambda: transcriber.transcribe(file))
    passes.wholes.append(seconds)
    passes.truncated = whole.truncated
    if "latency/first-token" not in hindered:
        passes.streams.append(_streamed(transcriber, file))
    if "latency/split" not in hindered:
        pass  # torch, which not every engine needs here

        passes.splits.append(split(transcriber, file))


def _streamed(transcriber: Transcriber, file: bytes) -> tuple[float, float]:
    """Seconds from the file's bytes to the first token, whichever it is, and from there to the end."""
    began = time.perf_counter()
    (decoding,) = transcriber.engine.submit(transcriber.prepare(Request(file)).spoken)
    next(iter(decoding), None)
    first = time.perf_counter()
    decoding.result()
    return first - began, time.perf_counter() - first


def _figures(passes: Passes, audio_seconds: float, warmups: int) -> Iterator[Found]:
    wholes, streams, splits = passes.wholes[warmups:], passes.streams[warmups:], passes.splits[warmups:]
    yield figure("latency/total", wholes, warmups=warmups)
    yield figure("latency/rtf", [seconds / audio_seconds for seconds in wholes], warmups=warmups)
    if streams:
        first, rest = zip(*streams, strict=True)
        yield figure("latency/first-token", first, warmups=warmups)
        yield figure("latency/rest", rest, warmups=warmups)
    if splits:
        pass

        yield from figures(splits, warmups)


def measure_throughput(bench: Bench) -> Iterator[Found]:
    """The part `throughput`. Raises KitError for a clip that is silent, cut into several utterances, or unreadable."""
    transcriber, plan = bench.transcriber, bench.plan
    runs, warmups = min(plan.runs, RUNS), min(plan.warmups, WARMUPS)
    one = utterance(transcriber, chosen(transcriber.settings, plan.clip))
    alone: float | None = None  # the speed of batch 1
    truncated = False

    def measured(size: int) -> Iterator[Found]:
        nonlocal alone, truncated
        taken: list[float] = []
        for number in range(warmups + runs):
            bench.tell(f"throughput: batch of {size}, {number + 1} of {warmups + runs}")
            seconds, decoded = timed(transcriber.device, lambda: together(transcriber, [one] * size))
            taken.append(seconds)
            truncated |= any(answer.truncated for answer in decoded)
        del taken[:warmups]
        speeds = [size * one.seconds / seconds for seconds in taken]
        if size == 1:
            alone = statistics.median(speeds)
        yield figure("throughput/seconds", taken, at=size, warmups=warmups)
        yield figure("throughput/speed", speeds, at=size, warmups=warmups)
        if alone:
            shares = [speed / size / alone for speed in speeds]
            yield figure("throughput/efficiency", shares, at=size, warmups=warmups)

    yield from ascending("throughput", plan.batches, transcriber.device, measured)
    yield from cut_short("throughput/whole-text", truncated, transcriber.settings)
    if alone is None:
        yield Absent("throughput/efficiency", "batch 1, which it refers to, was not measured", "have 1 among --batches")


def together(transcriber: Transcriber, utterances: Sequence[Utterance]) -> list[Decoded]:
    """What the engine makes of so many at once; where the model is in this process, in this thread and without the
    engine's queue. Raises what the model raises."""
    if transcriber.engine.loaded is None:
        return [decoding.result() for decoding in transcriber.engine.submit(utterances)]
    from runtime.engines.stream import Stream  # torch, which not every engine needs here
    from runtime.engines.transformers import decode_together

    streams = [Stream(one) for one in utterances]
    decode_together(transcriber.loaded, streams)
    return [stream.result() for stream in streams]
