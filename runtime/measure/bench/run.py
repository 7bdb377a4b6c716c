"""Runs the parts of a benchmark, one after another; what one cannot measure, or a Ctrl-C, leaves what was found."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from env.errors import KitError
from env.settings import Settings
from runtime.measure import where
from runtime.measure.bench import Absent, Bench, Found, Plan
from runtime.measure.bench.clip import chosen
from runtime.measure.bench.record import BENCH, Benchmark, benchmark
from runtime.measure.records import COMPLETE, Clock
from runtime.measure.where import Where

RUNS = "runs"  # Head.ended of a record whose run goes on, or was killed
INTERRUPTED = "interrupted"  # how Head.ended begins where Ctrl-C ended the run

# What can be asked for, in the order in which it is measured: a module of this package and its function. They are
# imported when their turn has come, as some import torch, which the device must precede. Loading has none, as whatever
# is measured, the model is loaded and unloaded for it.
TABLE: dict[str, tuple[str, str] | None] = {
    "loading": None,
    "latency": ("latency", "measure"),
    "throughput": ("throughput", "measure"),
    "memory": ("memory", "measure"),
    "long": ("long_audio", "measure"),
    "closed": ("concurrency", "closed"),
    "open": ("concurrency", "arriving"),
    "engines": ("versus", "measure"),
    "vllm": ("both", "measure"),
    "host": ("host_cost", "measure"),
}


@dataclass(frozen=True)
class Listener:
    """Whom a run tells: `begins` where it measures and which clip it hears, before anything is measured, which may
    raise KitError to prevent it; `tells` how far it is; `keeps` the record so far, after each part, and at the end."""

    begins: Callable[[Where, str], None] = lambda _, __: None
    tells: Callable[[str], None] = lambda _: None
    keeps: Callable[[Benchmark], None] = lambda _: None


def run(settings: Settings, plan: Plan, listener: Listener) -> Benchmark:
    """Measure what is planned. A part that cannot be measured is absent, with the reason; where Ctrl-C ends the run,
    its record says so. Raises KitError where the model cannot be loaded or the server asked for does not answer, and
    KeyboardInterrupt before anything is measured."""
    clock, stage = Clock(), "loading"
    clip = "" if plan.url else chosen(settings, plan.clip).name
    found: list[Found] = []
    place: Where | None = None

    def keep(ended: str) -> Benchmark:
        assert place
        record = benchmark(clock.head(BENCH, place, ended=ended), plan, found, clip=clip)
        listener.keeps(record)
        return record

    listener.tells("loading: measuring")
    try:
        with _opened(settings, plan, found, listener.tells) as (bench, place):
            listener.begins(place, clip)
            for stage in plan.parts:
                listener.tells(f"{stage}: measuring")
                for one in _measured(stage, bench):
                    found.append(one)
                keep(RUNS)
            stage = "unloading"
        return keep(COMPLETE)
    except KitError:
        raise
    except BaseException as error:
        if place is None:
            raise
        interrupted = isinstance(error, KeyboardInterrupt)
        record = keep(f"{INTERRUPTED if interrupted else f'failed ({type(error).__name__})'} in {stage}")
        if not interrupted:
            raise
        return record


@contextmanager
def _opened(
    settings: Settings, plan: Plan, found: list[Found], tell: Callable[[str], None]
) -> Iterator[tuple[Bench, Where]]:
    """The model loaded, or the server found that the plan names; and where it is."""
    if plan.url:
        from runtime.measure.remote import Remote

        with Remote(plan.url) as server:
            server.check_ready()
            place = server.where()
        yield Bench(None, plan, tell), place
        return
    from runtime.measure.bench import loading

    with loading.opened(settings, found, tell) as transcriber:
        yield Bench(transcriber, plan, tell), where.of(transcriber)


def _measured(part: str, bench: Bench) -> Iterator[Found]:
    place = TABLE[part]
    if place is None:
        return
    module, function = place
    try:
        yield from getattr(importlib.import_module(f"{__package__}.{module}"), function)(bench)
    except KitError as error:
        yield Absent(part, f"{error.subject}: {error.reason}", error.advice)
