"""What `invoke dev.host-cost`, `dev.first-validation` and `dev.queue-memory` run: it measures and prints."""

import sys
from collections.abc import Callable, Iterator

import first_validation
import host_cost
import queue_memory

from env.errors import KitError
from env.sources import load_settings
from runtime.measure import records
from runtime.measure.bench.record import BENCH, Bench, Found, Plan, benchmark
from runtime.measure.bench.tables import grids, headline, terminal
from runtime.measure.synthetic_audio import lengths, recordings
from runtime.progress import status_line
from runtime.tables import console
from runtime.transcriber import transcriber_with_progress

CLIPS = 64  # recordings that waiting requests take in turn
REQUESTS = 500


def print_figures(measure: Callable[[Bench], Iterator[Found]]) -> None:
    """Tables of what that finds with the model of the settings."""
    out, clock, plan = console(), records.RunClock(), Plan(parts=())
    with transcriber_with_progress(load_settings()) as transcriber:
        head = clock.head(BENCH, records.of(transcriber))
        found = list(measure(Bench(transcriber, plan, lambda words: print(words, file=sys.stderr, flush=True))))
    out.print(headline(head.where), markup=False)
    for grid in grids(benchmark(head, plan, found)):
        out.print(terminal(grid))


def print_queue_memory() -> None:
    """The memory that requests hold while they wait."""
    files = [recording.file for recording in recordings(lengths(CLIPS))]
    with status_line("Letting requests wait"):
        held = queue_memory.measure(load_settings(), files, requests=REQUESTS)
    print(
        f"{REQUESTS} requests that wait hold {held.added / 2**20:.0f} MiB: the process has {held.held / 2**20:.0f}, "
        f"and {held.before / 2**20:.0f} MiB before"
    )


if __name__ == "__main__":
    try:
        {
            "host-cost": lambda: print_figures(host_cost.measure),
            "first-validation": lambda: print_figures(first_validation.measure),
            "queue-memory": print_queue_memory,
        }[sys.argv[1]]()
    except KitError as error:
        sys.exit(str(error))
