"""A server under load: clients that wait for their answers (closed arrival), and requests that come when they come
(open arrival).

The definitions are those of the Qwen3-ASR Technical Report (arXiv 2601.21337), as far as it states them: RTF is the
time that a request takes, divided by the seconds of its audio; throughput is seconds of audio transcribed per second,
for all clients together; time to first token is given as average and 95th percentile; concurrency goes to 128. Its
figures for the 0.6B model at 128, RTF 0.064 and 2000 s of audio per second, are those of a closed loop: clients divided
by RTF is throughput. It measures offline batches too: here that is the part `throughput`.

What differs here:
- Requests go through HTTP as WAV files, so sending and decoding these is part of all times.
- The first token is the first text that reaches the client: the tokens before it, which name the language, are none.
  A request without any text has no first token, and is not among the samples.
- Lengths are spread evenly from 1 to 20 s; the report does not say what its audio is like.
- Throughput is over a whole level, its end included, when the last clients wait for no company.
- Under open arrival all times count from when a request was due, not from when it was sent: otherwise a server that is
  late would be asked less, and look faster (coordinated omission).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from env.errors import KitError
from runtime.measure.bench.record import Absent, Bench, Found
from runtime.measure.client import RemoteServer
from runtime.measure.load_generator import ADDRESS, Clients, Level, clients, serving
from runtime.measure.metrics import PARTS
from runtime.measure.statistics import figure
from runtime.measure.synthetic_audio import lengths, recordings
from runtime.server.serve import raise_file_limit

SOUNDS = 64  # recordings, which requests take in turn
EACH = 2  # requests of a client, at least
FULL = 32  # clients that show how many requests a second a server can answer
# From there to the rates that are measured, in steps of 1.25: 0.5, 0.8, 1 and 1.25 times. All are preferred numbers
# (ISO 3, R10), so that two runs measure the same rates although what they found a server can answer is only similar.
STEPS = (-3, -1, 0, 1)
SEED = 5  # of the times at which requests arrive
# What to do about failures, by how their words begin.
ADVICE = {
    "401": "put the server's key into OPENAI_API_KEY",
    "429 queue_full": "it holds at most ASR_MAX_WAITING requests: fewer clients, or more servers",
    "429": "ASR_REQUESTS_PER_MINUTE and ASR_REQUESTS_AT_ONCE limit each caller: raise them to measure",
    "504": "they took longer than ASR_REQUEST_TIMEOUT_SECONDS: fewer clients, or more servers",
    "": "invoke logs tells why",
}


def closed(bench: Bench) -> Iterator[Found]:
    """So many clients, each of which asks again when it is answered. `at` is their number; before a level each of them
    asks once, which is not counted."""

    def level(crowd: Clients, count: float) -> Level:
        check(crowd.closed(int(count), int(count)))
        return crowd.closed(int(count), max(bench.plan.requests, EACH * int(count)))

    yield from _measured(bench, "closed", lambda _: bench.plan.clients, level, warmups=lambda count: int(count))


def arriving(bench: Bench) -> Iterator[Found]:
    """Requests arrive by a Poisson process, always the same, whatever is answered. `at` is how many per second, by the
    plan, else around what the server was found to answer."""

    def rates(crowd: Clients) -> Sequence[float]:
        bench.tell("open, what the server can answer")
        check(crowd.closed(FULL, FULL))
        return bench.plan.rates or around(check(crowd.closed(FULL, max(bench.plan.requests, EACH * FULL))).rate)

    def level(crowd: Clients, rate: float) -> Level:
        return crowd.arriving(arrivals(rate, bench.plan.requests))

    yield from _measured(bench, "open", rates, level, warmups=lambda _: FULL)


def arrivals(rate: float, count: int) -> list[float]:
    """When so many requests arrive, in seconds, at so many per second: a Poisson process, with the same pattern for
    every rate."""
    gaps = np.random.default_rng(SEED).exponential(1 / rate, count)
    return [float(time) for time in gaps.cumsum()]


def around(rate: float) -> list[float]:
    """The rates to measure where a server answers so many requests per second."""
    nearest = round(10 * math.log10(rate))
    return [float(f"{10 ** ((nearest + step) / 10):.2g}") for step in STEPS]


def _measured(
    bench: Bench,
    part: str,
    places: Callable[[Clients], Sequence[float]],
    level: Callable[[Clients, float], Level],
    *,
    warmups: Callable[[float], int],
) -> Iterator[Found]:
    """What was found at each place; where the server is lost, the rest is absent."""
    left: list[float] = []
    begun = False
    try:
        with _asking(bench) as crowd:
            left += places(crowd)
            while left:
                place = left[0]
                bench.tell(f"{part}, {PARTS[part].axis.en}: {place:g}")
                found = level(crowd, place)
                yield from _found(part, place, found, warmups=warmups(place))
                left, begun = left[1:], True
                check(found)
    except KitError as error:
        absent = [f"{part}@{place:g}" for place in left] if begun else [part]
        yield from (Absent(what, f"{error.subject}: {error.reason}", error.advice) for what in absent)


@contextmanager
def _asking(bench: Bench) -> Iterator[Clients]:
    """Clients of the plan's server, or of one around the transcriber. Raises KitError where it is not ready."""
    raise_file_limit()  # its children's limit is this process's
    with ExitStack() as stack:
        url = bench.plan.url
        if not url:
            url = f"http://{ADDRESS}:{stack.enter_context(serving(bench.transcriber)).port}"
        stack.enter_context(RemoteServer(url)).check_ready()
        yield stack.enter_context(clients(url, recordings(lengths(min(SOUNDS, bench.plan.requests)))))


def check(level: Level) -> Level:
    """The level. Raises KitError where the server was lost, or answered nothing."""
    if level.lost:
        raise KitError(
            "the server",
            f"was not ready any more: {level.lost}",
            "invoke logs tells why; start it again, and measure the rest",
        )
    if not level.answered:
        raise KitError("the server", failed(level), advice(level))
    return level


def _found(part: str, place: float, level: Level, *, warmups: int) -> Iterator[Found]:
    """The level's figures, and what was not answered."""
    yield figure(f"{part}/errors", [level.failures.total()], at=place, warmups=warmups)
    if level.failures:
        yield Absent(f"{part}@{place:g}", failed(level), advice(level))
    if not level.answered:
        return
    yield figure(f"{part}/throughput", [level.throughput], at=place, warmups=warmups)
    samples = {
        "latency": [outcome.latency for outcome in level.answered],
        "rtf": [outcome.rtf for outcome in level.answered],
        "first-token": [outcome.first_token for outcome in level.answered if outcome.first_token is not None],
    }
    for name, seconds in samples.items():
        if seconds:
            yield figure(f"{part}/{name}", seconds, at=place, warmups=warmups)
        else:
            yield Absent(f"{part}@{place:g}", "no first token, as no transcript had any text")


def failed(level: Level) -> str:
    """How many requests failed, and of what."""
    kinds = ", ".join(f"{count} times {words}" for words, count in level.failures.most_common())
    return f"{level.failures.total()} of {len(level.outcomes)} requests failed: {kinds}"


def advice(level: Level) -> str:
    """Advice about the commonest failure."""
    ((words, _),) = level.failures.most_common(1)
    return next(what for beginning, what in ADVICE.items() if words.startswith(beginning))
