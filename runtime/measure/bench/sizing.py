"""How large a host has to be: what a benchmark's record says of clients, memory and disk, with the arithmetic.

Nothing here is measured, and nothing is extrapolated beyond what was: clients are the most of the levels that were
measured, memory is what was measured for the seconds of audio that the settings let a server decode together.
"""

from collections.abc import Iterator

from env.field import variable
from env.settings import Settings
from runtime.measure.bench.record import Benchmark
from runtime.measure.bench.tables import BenchTable, tabulated
from runtime.measure.metrics import UNKNOWN, Bilingual, Language, amount
from runtime.measure.statistics import Figure
from runtime.measure.synthetic_audio import LONGEST, SHORTEST
from runtime.ops.deploy.limits import MIB, SESSION

GOALS = (1.0, 2.0, 5.0, 10.0)  # seconds within which 95 of 100 requests shall be answered
LOAD = 0.7  # of the throughput that is planned with: the rest is for hours that are busier than others
EACH = 360.0  # seconds of audio that a caller sends in an hour, in the example
LENGTH = (SHORTEST + LONGEST) / 2  # seconds of a request, on average: lengths are spread evenly
LOGS = 5 * 20 * 10**6  # bytes of a container's, docker/compose.yaml

CLIENTS = Bilingual("Sizing: what one such server answers", "容量规划:一个这样的服务能应答多少")
MEMORY = Bilingual("Sizing: what it takes", "容量规划:需要多少资源")
GOAL = Bilingual("p95 latency of at most", "p95 延迟上限")
WAITING = Bilingual("clients that wait for their answers", "等待应答的客户端数")
SPEED = Bilingual("audio per second", "每秒处理音频")
ANSWERED = Bilingual("requests per second", "每秒请求数")
ARRIVING = Bilingual("requests per second at random", "随机到达的每秒请求数")
CALLERS = Bilingual("callers of 6 min of audio an hour", "每小时 6 分钟音频的调用方数")
WHAT = Bilingual("For", "用途")
SIZE = Bilingual("Size", "大小")
HOW = Bilingual("How", "依据")
CLIENTS_HOW = Bilingual(
    "Each is the most of those measured at which 95 of 100 requests of {shortest:g} to {longest:g} s are answered "
    "within the goal and none failed; + where nothing more was measured. Requests per second = audio per second / "
    "{length:g} s, their mean. Callers = the lesser of audio per second × {load:.0%} and requests per second at random "
    "× {length:g} s, × 3600 s / {each:g} s. A live stream takes one second of audio per second. Servers = what is "
    "needed / what one answers, rounded up.",
    "各项均为实测档位中的最大值:{shortest:g} 至 {longest:g} s 的请求有 95% 在上限内得到应答,且无一失败;"
    "未测更高档位的标 +。每秒请求数 = 每秒处理音频 / 平均长度 {length:g} s。"
    "调用方数 = min(每秒处理音频 × {load:.0%},随机到达的每秒请求数 × {length:g} s) × 3600 s / {each:g} s。"
    "每路实时流每秒占用一秒音频。服务个数 = 所需 / 单个所能应答,向上取整。",
)
MEMORY_HOW = Bilingual(
    "The limit that `make up` sets is higher: it counts what the settings allow at worst, helpers and decoded audio "
    "included.",
    "`make up` 设置的内存上限更高:它按设置所允许的最坏情况计算,包括辅助进程和解码后的音频。",
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
    measured = Bilingual("measured", "实测")
    on_device = record.head.where.silicon != "CPU" and loaded is not None
    decoding = tuple(_decoding(record, loaded if on_device else host, "device" if on_device else "host"))
    if on_device and loaded is not None:
        yield Bilingual("device: model, loaded", "设备:加载后的模型"), loaded, measured
        yield from decoding
        total = held.get("memory/device-total")
        of = (
            Bilingual(f"of {amount(total, 'bytes')}", f"共 {amount(total, 'bytes')}")
            if total
            else Bilingual("sum", "合计")
        )
        yield Bilingual("device, together", "设备合计"), loaded + sum(size for _, size, _ in decoding), of
    yield Bilingual("host: process, model loaded", "主机:加载模型后的进程"), host, measured
    if not on_device:
        yield from decoding
    waiting = _setting(record, "max_waiting")
    name = variable("max_waiting")
    how = Bilingual(f"{name} {waiting:g} × {SESSION} MiB, at most", f"{name} {waiting:g} × {SESSION} MiB,上限")
    yield Bilingual("host: requests that wait", "主机:等待中的请求"), waiting * SESSION * MIB, how
    together = host + waiting * SESSION * MIB + (0 if on_device else sum(size for _, size, _ in decoding))
    yield Bilingual("host, together", "主机合计"), together, Bilingual("sum", "合计")
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
    how = Bilingual(
        f"{together:g} s together × {amount(second, 'bytes')}/s: peak of {length:g} s, less the model",
        f"同时 {together:g} s × {amount(second, 'bytes')}/s:{length:g} s 的峰值减去模型",
    )
    side = Bilingual("device", "设备") if where == "device" else Bilingual("host", "主机")
    yield Bilingual(f"{side.en}: KV cache and activations", f"{side.zh}:KV 缓存与激活值"), second * together, how


def _disk(record: Benchmark, held: dict[str, float]) -> Iterator[tuple[Bilingual, float, Bilingual]]:
    if "memory/weights" in held:
        yield Bilingual("disk: weights", "磁盘:权重"), held["memory/weights"], Bilingual("measured", "实测")
    largest = max(_setting(record, "upload_max_mib"), _setting(record, "url_max_mib"))
    spool = _setting(record, "spool_max_mib") or 3 * largest
    name = variable("spool_max_mib")
    how = Bilingual(f"{name}, in /tmp, which a container has in memory", f"{name},位于 /tmp,容器中即内存")
    yield Bilingual("disk: uploads", "磁盘:上传"), spool * MIB, how
    yield (
        Bilingual("disk: the container's log", "磁盘:容器日志"),
        LOGS,
        Bilingual("5 × 20 MB, at most", "5 × 20 MB,上限"),
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
