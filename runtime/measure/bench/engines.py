"""One of the kit's engines in a process of its own, behind the kit's own server on loopback."""

import importlib.metadata
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from env.errors import KitError
from env.groups.model import EngineName
from env.settings import Settings
from runtime import audio
from runtime.measure import records as where
from runtime.measure.bench.in_process import chosen, turns
from runtime.measure.bench.record import Absent, Bench, Found
from runtime.measure.bench.serving import EACH, SOUNDS, advice, check, failed
from runtime.measure.bench.worker import lack_of_memory, weights
from runtime.measure.client import RemoteServer
from runtime.measure.load_generator import ADDRESS, Clients, Level, Pipe, apart, clients, serving
from runtime.measure.records import Where
from runtime.measure.statistics import figure
from runtime.measure.synthetic_audio import Recording, lengths, recordings
from runtime.server.serve import raise_file_limit
from runtime.transcriber import Transcriber, limits, open_transcriber
from runtime.vllm_releases import VLLM_DISTRIBUTIONS

FAREWELL = 60.0  # seconds for an engine to stop in, with all that it started


@dataclass(frozen=True)
class Side:
    """An engine that can be asked: its server's address, and where its model runs."""

    url: str
    where: Where


@contextmanager
def side(settings: Settings, changed: Mapping[str, Any]) -> Iterator[Side]:
    """The engine of these settings, of which some are `changed`, by their names; it stops with the block, and with it
    what it started. Raises KitError where it does not start."""
    wanted = settings.model_copy(update=dict(changed))
    with apart(_serve, wanted, name=f"the process of the engine {wanted.engine_name}") as pipe:
        told = pipe.recv()
        if isinstance(told, KitError):
            raise told
        port, place = told
        known = {f"ASR_{name.upper()}": str(value) for name, value in changed.items()}
        try:
            yield Side(f"http://{ADDRESS}:{port}", replace(place, settings={**place.settings, **known}))
        finally:
            with suppress(OSError):  # it has ended already
                pipe.send(None)
                pipe.poll(FAREWELL)


def _serve(pipe: Pipe, settings: Settings) -> None:
    """Tell port and place, or what keeps the engine from starting; then serve until told otherwise."""
    raise_file_limit()
    try:
        with open_transcriber(settings) as transcriber, serving(transcriber) as server:
            pipe.send((server.port, where.of(transcriber)))
            pipe.recv()
    except KitError as error:
        pipe.send(error)
        return
    pipe.send(None)


TRANSFORMERS, VLLM = ENGINES = ("transformers", "vllm")
LEVELS = (8, 16)  # clients
SHARE = 0.5  # of an NPU's memory, at most, for a vLLM that is started beside another engine
WINDOW = 8.0  # seconds of audio within which the audio encoder attends: n_window_infer, 800 frames of 10 ms
INSTALL = "set ASR_VLLM_PYTHON to a Python that has vLLM, or ASR_VLLM_URL to a vLLM that runs"

Sides = Mapping[str, Side]
Rounds = Mapping[str, list[Level]]  # by the engine; those of a number belong together


def measure_engines(bench: Bench) -> Iterator[Found]:
    """The part `vllm`. Where one of the engines does not start, there is nothing to compare."""
    if lack := _lack(bench.transcriber):
        yield lack
        return
    with ExitStack() as stack:
        found: dict[str, Side] = {}
        for name, changed in changes(bench.transcriber).items():
            bench.tell(f"vllm: starting {name}")
            try:
                found[name] = stack.enter_context(side(bench.transcriber.settings, changed))
            except KitError as error:
                yield Absent(f"vllm@{name}", f"{error.subject}: {error.reason}", error.advice)
                return
        sides = {name: found[name] for name in ENGINES}
        yield from (one.where for one in sides.values())
        yield from _compared(bench, sides)


def changes(transcriber: Transcriber) -> dict[EngineName, dict[str, Any]]:
    """What is set for each engine, or matters to the comparison, in the order of starting: vLLM wants its share of a
    device's memory whole. Servers that decode for this process already are used, not started anew."""
    settings = transcriber.settings
    running = ",".join(server.url for server in transcriber.engine.status().servers)
    vllm: dict[str, Any] = {"engine": VLLM, "vllm_max_seqs": settings.vllm_max_seqs}
    if running:
        vllm |= {"vllm_url": running}
    elif not settings.vllm_url:
        share = min(SHARE, settings.vllm_memory_share)
        vllm |= {"vllm_replicas": 1, "vllm_memory_share": share, "vllm_eager": settings.vllm_eager}
    return {"vllm": vllm, "transformers": {"engine": TRANSFORMERS, "max_batch": settings.max_batch}}


def _lack(transcriber: Transcriber) -> Absent | None:
    """Why there can be no comparison, as far as that is known beforehand."""
    settings = transcriber.settings
    if not (settings.vllm_url or settings.vllm_python or _installed()):
        return Absent("vllm", "this Python has no vLLM, and no other is named", INSTALL)
    if transcriber.engine.loaded and not transcriber.device.is_npu:
        models = 1 if settings.vllm_url else len(ENGINES)
        if lack := lack_of_memory(weights(transcriber), models=models):
            return Absent("vllm", lack, "free memory, or measure a smaller model")
    return None


def _installed() -> bool:
    """Whether this Python has a vLLM, which is not imported to know."""
    return any(next(iter(importlib.metadata.distributions(name=name)), None) for name in VLLM_DISTRIBUTIONS)


def _compared(bench: Bench, sides: Sides) -> Iterator[Found]:
    plan, settings = bench.plan, bench.transcriber.settings
    spread = lengths(min(SOUNDS, plan.requests))
    sounds = recordings(min(seconds, settings.segment_seconds) for seconds in spread)
    clip = chosen(settings, plan.clip)
    alone = Recording(clip.read_bytes(), audio.load(clip, limits=limits(settings)).seconds)
    stage = "vllm/texts"
    try:
        yield from _texts(bench, sides, sounds)
        stage = "vllm/alone"
        yield from _alone(bench, sides, alone)
        with ExitStack() as stack:
            crowds = _crowds(stack, sides, sounds)
            for count in LEVELS:
                stage = f"vllm@{count}"
                yield from _level(bench, crowds, count)
    except KitError as error:
        yield Absent(stage, f"{error.subject}: {error.reason}; what follows was not tried", error.advice)


def _texts(bench: Bench, sides: Sides, sounds: list[Recording]) -> Iterator[Found]:
    """How many transcripts differ, which also warms both up. Raises KitError where one cannot be had."""
    differing = {True: 0, False: 0}  # by whether the recording is longer than the window
    with ExitStack() as stack:
        servers = [stack.enter_context(RemoteServer(one.url)) for one in sides.values()]
        for number, sound in enumerate(sounds):
            bench.tell(f"vllm: transcript {number + 1} of {len(sounds)}")
            one, other = (server.transcribe(sound.file).text for server in servers)
            differing[sound.seconds > WINDOW] += one != other
    longer = sum(sound.seconds > WINDOW for sound in sounds)
    yield figure("vllm/texts", [len(sounds) - longer])
    yield figure("vllm/texts-differing", [differing[False]])
    yield figure("vllm/long-texts", [longer])
    yield figure("vllm/long-texts-differing", [differing[True]])


def _alone(bench: Bench, sides: Sides, clip: Recording) -> Iterator[Found]:
    """One client, again and again."""
    warmups, runs = bench.plan.warmups, bench.plan.runs
    with ExitStack() as stack:
        crowds = _crowds(stack, sides, [clip])
        rounds = _rounds(crowds, warmups + runs, lambda crowd: crowd.closed(1, 1), _teller(bench, "alone"))
    yield from _figures("alone", {name: levels[warmups:] for name, levels in rounds.items()}, warmups)


def _level(bench: Bench, crowds: Mapping[str, Clients], count: int) -> Iterator[Found]:
    """So many clients, each of which asks once before, which is not counted."""
    requests = max(bench.plan.requests, EACH * count)
    for crowd in crowds.values():
        check(crowd.closed(count, count))
    rounds = _rounds(
        crowds,
        max(1, bench.plan.runs // 5),
        lambda crowd: crowd.closed(count, requests),
        _teller(bench, f"{count} clients"),
    )
    yield from _figures("load", rounds, count, at=count)


def _crowds(stack: ExitStack, sides: Sides, sounds: list[Recording]) -> dict[str, Clients]:
    return {name: stack.enter_context(clients(one.url, sounds)) for name, one in sides.items()}


def _teller(bench: Bench, what: str) -> Callable[[str], None]:
    return lambda words: bench.tell(f"vllm: {what}, {words}")


def _rounds(
    crowds: Mapping[str, Clients], count: int, ask: Callable[[Clients], Level], tell: Callable[[str], None]
) -> dict[str, list[Level]]:
    """So many rounds. Raises KitError where a server was lost, or answered nothing."""
    rounds: dict[str, list[Level]] = {name: [] for name in crowds}
    for number in range(count):
        tell(f"round {number + 1} of {count}")
        for name in turns(list(crowds), number):
            rounds[name].append(check(ask(crowds[name])))
    return rounds


def _figures(case: str, rounds: Rounds, warmups: int, *, at: float | None = None) -> Iterator[Found]:
    """What each engine took, and the ratios of each round. Of a lone client, throughput would say what latency says."""
    merged = {name: Level(tuple(one for level in levels for one in level.outcomes)) for name, levels in rounds.items()}
    for name, level in merged.items():
        if level.failures:
            place = "" if at is None else f"@{at:g}"
            yield Absent(f"vllm/{case}/{name}{place}", failed(level), advice(level))
        yield figure(f"vllm/{case}/{name}-errors", [level.failures.total()], at=at, warmups=warmups)
    for quantity, of in SAMPLES.items():
        for name, level in merged.items():
            if samples := of(level):
                yield figure(f"vllm/{case}/{name}-{quantity}", samples, at=at, warmups=warmups)
        yield from _ratios(case, quantity, rounds, partial(_median, of), warmups, at)
    if at is not None:
        for name, levels in rounds.items():
            speeds = [level.throughput for level in levels]
            yield figure(f"vllm/{case}/{name}-throughput", speeds, at=at, warmups=warmups)
        yield from _ratios(case, "throughput", rounds, lambda level: level.throughput, warmups, at)


def _ratios(
    case: str, quantity: str, rounds: Rounds, middle: Callable[[Level], float], warmups: int, at: float | None
) -> Iterator[Found]:
    """vLLM's through transformers', of each round; none where a round has no such figure."""
    try:
        ratios = [middle(other) / middle(one) for one, other in zip(*(rounds[name] for name in ENGINES), strict=True)]
    except statistics.StatisticsError:
        return
    yield figure(f"vllm/{case}/{quantity}-ratio", ratios, at=at, warmups=warmups)


def _median(of: Callable[[Level], list[float]], level: Level) -> float:
    return statistics.median(of(level))


def _latencies(level: Level) -> list[float]:
    return [outcome.latency for outcome in level.answered]


def _first_tokens(level: Level) -> list[float]:
    """Of transcripts that had any text."""
    return [outcome.first_token for outcome in level.answered if outcome.first_token is not None]


SAMPLES: Mapping[str, Callable[[Level], list[float]]] = {"latency": _latencies, "first-token": _first_tokens}
