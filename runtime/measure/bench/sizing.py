"""How large a host has to be: what a benchmark's record says of clients, memory and disk, with the arithmetic.

Nothing here is measured, and nothing is extrapolated beyond what was: clients are the most of the levels that were
measured, memory is what was measured for the seconds of audio that the settings let a server decode together.
"""

from collections.abc import Iterator

from env.field import variable
from env.settings import Settings
from env.translation import Bilingual, Language, translated
from runtime.measure.bench.record import Benchmark
from runtime.measure.bench.tables import BenchTable, tabulated
from runtime.measure.metrics import UNKNOWN, amount
from runtime.measure.statistics import Figure
from runtime.measure.synthetic_audio import LONGEST, SHORTEST
from runtime.ops.deploy.limits import MIB, SESSION

GOALS = (1.0, 2.0, 5.0, 10.0)  # seconds within which 95 of 100 requests shall be answered
LOAD = 0.7  # of the throughput that is planned with: the rest is for hours that are busier than others
EACH = 360.0  # seconds of audio that a caller sends in an hour, in the example
LENGTH = (SHORTEST + LONGEST) / 2  # seconds of a request, on average: lengths are spread evenly
LOGS = 5 * 20 * 10**6  # bytes of a container's, docker/compose.yaml

CLIENTS = translated("Sizing: what one such server answers")
MEMORY = translated("Sizing: what it takes")
GOAL = translated("p95 latency of at most")
WAITING = translated("clients that wait for their answers")
SPEED = translated("audio per second")
ANSWERED = translated("requests per second")
ARRIVING = translated("requests per second at random")
CALLERS = translated("callers of 6 min of audio an hour")
WHAT = translated("For")
SIZE = translated("Size")
HOW = translated("How")
CLIENTS_HOW = translated(
    "Each is the most of those measured at which 95 of 100 requests of {shortest:g} to {longest:g} s are answered "
    "within the goal and none failed; + where nothing more was measured. Requests per second = audio per second / "
    "{length:g} s, their mean. Callers = the lesser of audio per second × {load:.0%} and requests per second at random "
    "× {length:g} s, × 3600 s / {each:g} s. A live stream takes one second of audio per second. Servers = what is "
    "needed / what one answers, rounded up.",
)
MEMORY_HOW = translated(
    "The limit that `make up` sets is higher: it counts what the settings allow at worst, helpers and decoded audio "
    "included.",
)


def grids(record: Benchmark, language: Language = "en") -> Iterator[tuple[BenchTable, str]]:
    """The tables that the record has figures for, each with its arithmetic in words."""
    if rows := tuple(_clients(record, goal) for goal in GOALS if record.part("closed")):
        columns = tuple(words[language] for words in (GOAL, WAITING, SPEED, ANSWERED, ARRIVING, CALLERS))
        how = CLIENTS_HOW[language].format(shortest=SHORTEST, longest=LONGEST, length=LENGTH, load=LOAD, each=EACH)
        yield BenchTable(CLIENTS[language], columns, rows), how
    if taken := tuple(_memory(record)):
        columns = tuple(words[language] for words in (WHAT, SIZE, HOW))
        shown = tuple((what[language], amount(size, "bytes"), how[language]) for what, size, how in taken)
        yield BenchTable(MEMORY[language], columns, shown), MEMORY_HOW[language]


def markdown(record: Benchmark, language: Language = "en") -> str:
    """The tables for a page; empty where there are none."""
    return "".join(f"\n## {grid.title}\n\n{tabulated(grid)}\n\n{how}\n" for grid, how in grids(record, language))


def _clients(record: Benchmark, goal: float) -> tuple[str, ...]:
    """A goal's row."""
    clients, open_rate = (_most(record, part, goal) for part in ("closed", "open"))
    speed = next((one.spread.middle for one in record.part("closed") if _is(one, "closed/throughput", clients)), None)
    planned = None if speed is None else LOAD * speed
    if planned is not None and record.part("open"):  # many callers come at random, and together
        planned = min(planned, open_rate * LENGTH) if open_rate else None
    return (
        amount(goal, "s"),
        _bounded(record, "closed", clients),
        amount(speed, "x"),
        UNKNOWN if speed is None else f"{speed / LENGTH:.2g}",
        _bounded(record, "open", open_rate),
        UNKNOWN if planned is None else str(int(planned * 3600 / EACH)),
    )


def _most(record: Benchmark, part: str, goal: float) -> float | None:
    """The highest level up to which all are within the goal, and without a failure; None where the first is not."""
    found: float | None = None
    for figure in sorted(_of(record, f"{part}/latency"), key=_place):
        errors = sum(one.spread.middle for one in record.part(part) if _is(one, f"{part}/errors", figure.at))
        if errors or figure.spread.p95 is None or figure.spread.p95 > goal:
            break
        found = figure.at
    return found


def _bounded(record: Benchmark, part: str, level: float | None) -> str:
    """A level, marked where nothing above it was measured."""
    if level is None:
        return UNKNOWN
    highest = max(_place(one) for one in record.part(part))
    return f"{level:g}" + ("+" if level == highest else "")


def _memory(record: Benchmark) -> Iterator[tuple[Bilingual, float, Bilingual]]:
    """What is held where: for what, bytes, and how that is known."""
    held = {figure.quantity: figure.spread.middle for figure in record.part("memory")}
    loaded, host = held.get("memory/loaded"), held.get("memory/host-loaded")
    if host is None:
        return
    measured = translated("measured")
    on_device = record.head.where.silicon != "CPU" and loaded is not None
    decoding = tuple(_decoding(record, loaded if on_device else host, "device" if on_device else "host"))
    if on_device and loaded is not None:
        yield translated("device: model, loaded"), loaded, measured
        yield from decoding
        total = held.get("memory/device-total")
        of = translated("of {total}", total=amount(total, "bytes")) if total else translated("sum")
        yield translated("device, together"), loaded + sum(size for _, size, _ in decoding), of
    yield translated("host: process, model loaded"), host, measured
    if not on_device:
        yield from decoding
    waiting = _setting(record, "max_waiting")
    name = variable("max_waiting")
    how = translated("{name} {waiting:g} × {SESSION} MiB, at most", name=name, waiting=waiting, SESSION=SESSION)
    yield translated("host: requests that wait"), waiting * SESSION * MIB, how
    together = host + waiting * SESSION * MIB + (0 if on_device else sum(size for _, size, _ in decoding))
    yield translated("host, together"), together, translated("sum")
    yield from _disk(record, held)


def _decoding(record: Benchmark, loaded: float | None, where: str) -> Iterator[tuple[Bilingual, float, Bilingual]]:
    """KV cache and activations of the most audio that is decoded together, by the longest segment that was measured."""
    peaks = sorted(_of(record, f"length-memory/{where}"), key=_place)
    if loaded is None or not peaks or not peaks[-1].at:
        return
    length, peak = peaks[-1].at, peaks[-1].spread.middle
    second = max(peak - loaded, 0.0) / length
    batch = _setting(record, "max_batch") * _setting(record, "segment_seconds")
    together = min(batch, _setting(record, "batch_audio_seconds"))
    how = translated(
        "{together:g} s together × {second}/s: peak of {length:g} s, less the model",
        together=together,
        second=amount(second, "bytes"),
        length=length,
    )
    side = translated("device") if where == "device" else translated("host")
    yield translated("{side}: KV cache and activations", side=side), second * together, how


def _disk(record: Benchmark, held: dict[str, float]) -> Iterator[tuple[Bilingual, float, Bilingual]]:
    if "memory/weights" in held:
        yield translated("disk: weights"), held["memory/weights"], translated("measured")
    largest = max(_setting(record, "upload_max_mib"), _setting(record, "url_max_mib"))
    spool = _setting(record, "spool_max_mib") or 3 * largest
    name = variable("spool_max_mib")
    how = translated("{name}, in /tmp, which a container has in memory", name=name)
    yield translated("disk: uploads"), spool * MIB, how
    yield (
        translated("disk: the container's log"),
        LOGS,
        translated("5 × 20 MB, at most"),
    )


def _setting(record: Benchmark, name: str) -> float:
    """A setting of the run, 0 where it has none: the record has those that are not the default."""
    return float(record.head.where.settings.get(variable(name)) or Settings.model_fields[name].default or 0)


def _of(record: Benchmark, quantity: str) -> list[Figure]:
    return [figure for figure in record.figures if figure.quantity == quantity]


def _is(figure: Figure, quantity: str, level: float | None) -> bool:
    return level is not None and (figure.quantity, figure.at) == (quantity, level)


def _place(figure: Figure) -> float:
    return figure.at or 0.0
