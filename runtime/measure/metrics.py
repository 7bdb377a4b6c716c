"""All that is measured: its name in both languages, its unit, and which way is better. The one place for it."""

from dataclasses import dataclass
from typing import Literal

from env.translation import Bilingual, translated

Better = Literal["lower", "higher", ""]

DIGITS = 4  # significant ones, as many as the spread of a good measurement leaves meaning
UNKNOWN = "–"


@dataclass(frozen=True)
class BenchPart:
    """A part of the benchmark, with what its figures' `at` counts; empty words where they have none."""

    name: Bilingual
    axis: Bilingual


@dataclass(frozen=True)
class Quantity:
    """What is measured. Units: s, bytes, x (seconds of audio per second), 1 (a ratio or share), or what is counted."""

    name: Bilingual
    unit: str
    better: Better


_NONE = Bilingual("", "")
_UTTERANCES = translated("utterances in a batch")
_SEGMENT = translated("seconds of a segment, at most ASR_SEGMENT_SECONDS")
_MINUTES = translated("minutes of audio")
_CLIENTS = translated("clients")
_RATE = translated("requests per second")

PARTS: dict[str, BenchPart] = {
    "loading": BenchPart(translated("Loading"), _NONE),
    "latency": BenchPart(translated("Latency of one clip"), _NONE),
    "throughput": BenchPart(translated("Throughput over batch"), _UTTERANCES),
    "memory": BenchPart(translated("Memory"), _NONE),
    "batch-memory": BenchPart(translated("Memory over batch"), _UTTERANCES),
    "length-memory": BenchPart(translated("Memory over length"), _SEGMENT),
    "long": BenchPart(translated("Long audio"), _MINUTES),
    "closed": BenchPart(translated("Server, closed arrival"), _CLIENTS),
    "open": BenchPart(translated("Server, open arrival"), _RATE),
    "engines": BenchPart(translated("Side by side with qwen-asr"), _NONE),
    "vllm": BenchPart(translated("Side by side: transformers and vLLM"), _CLIENTS),
    "host": BenchPart(translated("Cost on the host (simulated NPU)"), _UTTERANCES),
}


def _served(part: str) -> dict[str, Quantity]:
    return {
        f"{part}/latency": Quantity(translated("from asking to the whole text"), "s", "lower"),
        f"{part}/first-token": Quantity(translated("time to first token"), "s", "lower"),
        f"{part}/rtf": Quantity(translated("RTF of a request"), "1", "lower"),
        f"{part}/throughput": Quantity(translated("throughput"), "x", "higher"),
        f"{part}/errors": Quantity(translated("failed requests"), "requests", "lower"),
    }


def _compared(name: str, case: Bilingual) -> dict[str, Quantity]:
    who = {
        "kit": translated("the kit"),
        "qwen-asr": translated("qwen-asr's transcribe"),
        "first-validation": translated("as in the first validation"),
    }
    seconds = {
        f"engines/{name}/{key}": Quantity(translated("{case}: {words}", case=case, words=words), "s", "lower")
        for key, words in who.items()
    }
    ratios = {
        f"engines/{name}/{key}-ratio": Quantity(
            translated("{case}: {words}, times the kit's", case=case, words=words), "1", ""
        )
        for key, words in who.items()
        if key != "kit"
    }
    tokens = {
        f"engines/{name}/{key}-tokens": Quantity(
            translated("{case}: tokens decoded, {words}", case=case, words=words),
            "tokens",
            "",
        )
        for key, words in who.items()
    }
    return seconds | ratios | tokens


def _both(name: str, case: Bilingual) -> dict[str, Quantity]:
    """Of both engines, and the ratios of vLLM's to those of transformers."""
    measured: dict[str, tuple[Bilingual, str, Better]] = {
        "latency": (translated("latency"), "s", "lower"),
        "first-token": (translated("time to first token"), "s", "lower"),
        "throughput": (translated("throughput"), "x", "higher"),
        "errors": (translated("failed requests"), "requests", "lower"),
    }
    found = {}
    for key, (words, unit, better) in measured.items():
        for engine, shown in (("transformers", "transformers"), ("vllm", "vLLM")):
            both = translated("{case}{words}, {engine}", case=case, words=words, engine=shown)
            found[f"vllm/{name}/{engine}-{key}"] = Quantity(both, unit, better)
        ratio = translated("{case}{words}, vLLM / transformers", case=case, words=words)
        found[f"vllm/{name}/{key}-ratio"] = Quantity(ratio, "1", "")
    return found


def _texts(key: str, audio: Bilingual) -> dict[str, Quantity]:
    return {
        f"vllm/{key}": Quantity(translated("transcripts compared, {audio}", audio=audio), "transcripts", ""),
        f"vllm/{key}-differing": Quantity(
            translated("transcripts that differ, {audio}", audio=audio), "transcripts", "lower"
        ),
    }


def _host_cost(key: str, who: str) -> dict[str, Quantity]:
    counts = (
        ("launches", translated("kernels"), "launches"),
        ("waits", translated("waits"), "waits"),
    )
    return {
        f"host/{key}{prefix}{name}": Quantity(
            translated("{who}{counted} {per}", who=who, counted=counted, per=per), unit, "lower"
        )
        for prefix, per in (
            ("", translated("per step (a token of each)")),
            ("first-", translated("per utterance, up to the first token")),
        )
        for name, counted, unit in counts
    }


# By the part, a slash, and the quantity's own name.
QUANTITIES: dict[str, Quantity] = {
    "loading/seconds": Quantity(translated("loading the model"), "s", "lower"),
    "loading/first": Quantity(translated("first transcription after loading"), "s", "lower"),
    "latency/total": Quantity(translated("whole"), "s", "lower"),
    "latency/rtf": Quantity(translated("RTF"), "1", "lower"),
    "latency/audio": Quantity(translated("decoding the audio file"), "s", "lower"),
    "latency/features": Quantity(translated("features"), "s", "lower"),
    "latency/encoder": Quantity(translated("audio encoder"), "s", "lower"),
    "latency/prefill": Quantity(translated("prefill"), "s", "lower"),
    "latency/token": Quantity(translated("decoding a token"), "s", "lower"),
    "latency/tokens": Quantity(translated("decoding all tokens"), "s", "lower"),
    "latency/text": Quantity(translated("tokens to text"), "s", "lower"),
    "latency/first-token": Quantity(translated("time to first token"), "s", "lower"),
    "latency/rest": Quantity(translated("from the first token to the end"), "s", "lower"),
    "latency/split": Quantity(translated("all stages, each waiting for the device"), "s", "lower"),
    "latency/count": Quantity(translated("tokens decoded"), "tokens", ""),
    "throughput/seconds": Quantity(translated("a batch"), "s", "lower"),
    "throughput/speed": Quantity(translated("audio per second"), "x", "higher"),
    "throughput/efficiency": Quantity(translated("speed per utterance, of batch 1's"), "1", "higher"),
    "memory/weights": Quantity(translated("weights, as files"), "bytes", "lower"),
    "memory/before": Quantity(translated("device, before loading"), "bytes", "lower"),
    "memory/host-before": Quantity(translated("host process, before loading"), "bytes", "lower"),
    "memory/loaded": Quantity(translated("device, model loaded"), "bytes", "lower"),
    "memory/device-total": Quantity(translated("device, all there is"), "bytes", ""),
    "memory/host-loaded": Quantity(translated("host process, model loaded"), "bytes", "lower"),
    "memory/unloaded": Quantity(translated("device, after unloading"), "bytes", "lower"),
    "memory/host-unloaded": Quantity(translated("host process, after unloading"), "bytes", "lower"),
    "batch-memory/device": Quantity(translated("device, peak"), "bytes", "lower"),
    "batch-memory/host": Quantity(translated("host process, peak"), "bytes", "lower"),
    "length-memory/device": Quantity(translated("device, peak"), "bytes", "lower"),
    "length-memory/host": Quantity(translated("host process, peak"), "bytes", "lower"),
    "long/seconds": Quantity(translated("whole"), "s", "lower"),
    "long/rtf": Quantity(translated("RTF"), "1", "lower"),
    "long/speed": Quantity(translated("audio per second"), "x", "higher"),
    **_served("closed"),
    **_served("open"),
    **_compared("alone", translated("one clip")),
    **_compared("batch", translated("batch of 8, mixed lengths")),
    **_compared("long", translated("5 minutes of audio")),
    **_texts("texts", translated("audio of at most 8 s")),
    **_texts("long-texts", translated("longer audio")),
    **_both("alone", translated("one clip: ")),
    **_both("load", _NONE),
    **_host_cost("", ""),
    **_host_cost("qwen-asr-", "qwen-asr: "),
}


def part_of(quantity: str) -> str:
    """The part that a quantity belongs to."""
    return quantity.partition("/")[0]


@dataclass(frozen=True)
class Scale:
    """A unit for people, and how many of the measured unit it is."""

    symbol: str
    size: float


TIMES = (Scale("s", 1), Scale("ms", 1e-3), Scale("µs", 1e-6), Scale("ns", 1e-9))
SIZES = (Scale("GiB", 2**30), Scale("MiB", 2**20), Scale("KiB", 2**10), Scale("B", 1))
MINUTE = 60.0
LONG = 2 * MINUTE  # seconds from which on minutes are shown


def amount(value: float | None, unit: str) -> str:
    """A value in a unit of `runtime.measure.metrics`, such as `734.3 ms`; of what is counted and of ratios, the
    number. A dash for None."""
    if value is None:
        return UNKNOWN
    if unit == "s" and abs(value) >= LONG:
        minutes, seconds = divmod(round(value), int(MINUTE))
        return f"{minutes} min {seconds} s"
    shown = scale(value, unit)
    return f"{digits(value / shown.size)} {shown.symbol}".rstrip()


def scale(value: float, unit: str) -> Scale:
    """The unit in which a value of about this size is read most easily."""
    scales = {"s": TIMES, "bytes": SIZES}.get(unit)
    if scales is None:
        return Scale("x" if unit == "x" else "", 1)
    return next((step for step in scales if abs(value) >= step.size), scales[-1] if value else scales[0])


def digits(value: float) -> str:
    """A number with DIGITS significant digits, whole from there on, without an exponent; 0 as 0."""
    if value == round(value) or abs(value) >= 10**DIGITS:
        return f"{value:.0f}"
    places, size = DIGITS - 1, abs(value)
    while size >= 10:
        places, size = places - 1, size / 10
    while size < 1 and places < 3 * DIGITS:
        places, size = places + 1, size * 10
    return f"{value:.{places}f}"


def times(ratio: float | None) -> str:
    """A ratio, such as `0.96×`; a dash for None."""
    if ratio is None:
        return UNKNOWN
    return f"{ratio:.2f}×" if 0.1 <= ratio < 100 else f"{digits(float(f'{ratio:.2g}'))}×"


def share(part: float) -> str:
    """A part of a whole as `12.3%`."""
    return f"{part:.1%}"
