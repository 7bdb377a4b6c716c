"""All that is measured: its name in both languages, its unit, and which way is better. The one place for it."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", ""]
Language = Literal["en", "zh"]

DIGITS = 4  # significant ones, as many as the spread of a good measurement leaves meaning
UNKNOWN = "–"


@dataclass(frozen=True)
class Bilingual:
    """The same in English and Chinese."""

    en: str
    zh: str

    def __getitem__(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


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
_UTTERANCES = Bilingual("utterances in a batch", "批内语音段数")
_SEGMENT = Bilingual("seconds of a segment, at most ASR_SEGMENT_SECONDS", "单个语音段秒数,上限 ASR_SEGMENT_SECONDS")
_MINUTES = Bilingual("minutes of audio", "音频分钟数")
_CLIENTS = Bilingual("clients", "并发客户端数")
_RATE = Bilingual("requests per second", "每秒请求数")

PARTS: dict[str, BenchPart] = {
    "loading": BenchPart(Bilingual("Loading", "加载"), _NONE),
    "latency": BenchPart(Bilingual("Latency of one clip", "单条音频延迟"), _NONE),
    "throughput": BenchPart(Bilingual("Throughput over batch", "不同批大小的吞吐"), _UTTERANCES),
    "memory": BenchPart(Bilingual("Memory", "内存与显存"), _NONE),
    "batch-memory": BenchPart(Bilingual("Memory over batch", "不同批大小的内存峰值"), _UTTERANCES),
    "length-memory": BenchPart(Bilingual("Memory over length", "不同音频长度的内存峰值"), _SEGMENT),
    "long": BenchPart(Bilingual("Long audio", "长音频"), _MINUTES),
    "closed": BenchPart(Bilingual("Server, closed arrival", "服务并发:闭环到达"), _CLIENTS),
    "open": BenchPart(Bilingual("Server, open arrival", "服务并发:开环到达"), _RATE),
    "engines": BenchPart(Bilingual("Side by side with qwen-asr", "与 qwen-asr 对比"), _NONE),
    "vllm": BenchPart(Bilingual("Side by side: transformers and vLLM", "transformers 与 vLLM 对比"), _CLIENTS),
    "host": BenchPart(Bilingual("Cost on the host (simulated NPU)", "主机侧开销(模拟 NPU)"), _UTTERANCES),
}


def _served(part: str) -> dict[str, Quantity]:
    return {
        f"{part}/latency": Quantity(Bilingual("from asking to the whole text", "从请求到完整文本"), "s", "lower"),
        f"{part}/first-token": Quantity(Bilingual("time to first token", "首 token 时间"), "s", "lower"),
        f"{part}/rtf": Quantity(Bilingual("RTF of a request", "单请求 RTF"), "1", "lower"),
        f"{part}/throughput": Quantity(Bilingual("throughput", "吞吐"), "x", "higher"),
        f"{part}/errors": Quantity(Bilingual("failed requests", "失败请求数"), "requests", "lower"),
    }


def _compared(name: str, english: str, chinese: str) -> dict[str, Quantity]:
    who = {
        "kit": Bilingual("the kit", "本套件"),
        "qwen-asr": Bilingual("qwen-asr's transcribe", "qwen-asr 自带 transcribe"),
        "first-validation": Bilingual("as in the first validation", "首次验证的做法"),
    }
    seconds = {
        f"engines/{name}/{key}": Quantity(Bilingual(f"{english}: {words.en}", f"{chinese}:{words.zh}"), "s", "lower")
        for key, words in who.items()
    }
    ratios = {
        f"engines/{name}/{key}-ratio": Quantity(
            Bilingual(f"{english}: {words.en}, times the kit's", f"{chinese}:{words.zh},为本套件的倍数"), "1", ""
        )
        for key, words in who.items()
        if key != "kit"
    }
    tokens = {
        f"engines/{name}/{key}-tokens": Quantity(
            Bilingual(f"{english}: tokens decoded, {words.en}", f"{chinese}:解码 token 数,{words.zh}"), "tokens", ""
        )
        for key, words in who.items()
    }
    return seconds | ratios | tokens


def _both(name: str, english: str, chinese: str) -> dict[str, Quantity]:
    """Of both engines, and the ratios of vLLM's to those of transformers."""
    measured: dict[str, tuple[Bilingual, str, Better]] = {
        "latency": (Bilingual("latency", "延迟"), "s", "lower"),
        "first-token": (Bilingual("time to first token", "首 token 时间"), "s", "lower"),
        "throughput": (Bilingual("throughput", "吞吐"), "x", "higher"),
        "errors": (Bilingual("failed requests", "失败请求数"), "requests", "lower"),
    }
    found = {}
    for key, (words, unit, better) in measured.items():
        for engine, shown in (("transformers", "transformers"), ("vllm", "vLLM")):
            both = Bilingual(f"{english}{words.en}, {shown}", f"{chinese}{words.zh},{shown}")
            found[f"vllm/{name}/{engine}-{key}"] = Quantity(both, unit, better)
        ratio = Bilingual(f"{english}{words.en}, vLLM / transformers", f"{chinese}{words.zh},vLLM / transformers")
        found[f"vllm/{name}/{key}-ratio"] = Quantity(ratio, "1", "")
    return found


def _texts(key: str, english: str, chinese: str) -> dict[str, Quantity]:
    return {
        f"vllm/{key}": Quantity(
            Bilingual(f"transcripts compared, {english}", f"对比的文本数,{chinese}"), "transcripts", ""
        ),
        f"vllm/{key}-differing": Quantity(
            Bilingual(f"transcripts that differ, {english}", f"不同的文本数,{chinese}"), "transcripts", "lower"
        ),
    }


def _host_cost(key: str, who: str) -> dict[str, Quantity]:
    counts = (
        ("launches", Bilingual("kernels", "核函数启动"), "launches"),
        ("waits", Bilingual("waits", "设备等待"), "waits"),
    )
    return {
        f"host/{key}{prefix}{name}": Quantity(
            Bilingual(f"{who}{counted.en} {per.en}", f"{who}{per.zh}{counted.zh}次数"), unit, "lower"
        )
        for prefix, per in (
            ("", Bilingual("per step (a token of each)", "每步(每段一个 token)")),
            ("first-", Bilingual("per utterance, up to the first token", "每段至首个 token ")),
        )
        for name, counted, unit in counts
    }


# By the part, a slash, and the quantity's own name.
QUANTITIES: dict[str, Quantity] = {
    "loading/seconds": Quantity(Bilingual("loading the model", "加载模型"), "s", "lower"),
    "loading/first": Quantity(Bilingual("first transcription after loading", "加载后首次转写"), "s", "lower"),
    "latency/total": Quantity(Bilingual("whole", "总计"), "s", "lower"),
    "latency/rtf": Quantity(Bilingual("RTF", "RTF"), "1", "lower"),
    "latency/audio": Quantity(Bilingual("decoding the audio file", "音频解码"), "s", "lower"),
    "latency/features": Quantity(Bilingual("features", "特征提取"), "s", "lower"),
    "latency/encoder": Quantity(Bilingual("audio encoder", "音频编码器"), "s", "lower"),
    "latency/prefill": Quantity(Bilingual("prefill", "预填充"), "s", "lower"),
    "latency/token": Quantity(Bilingual("decoding a token", "单 token 解码"), "s", "lower"),
    "latency/tokens": Quantity(Bilingual("decoding all tokens", "全部 token 解码"), "s", "lower"),
    "latency/text": Quantity(Bilingual("tokens to text", "token 转文本"), "s", "lower"),
    "latency/first-token": Quantity(Bilingual("time to first token", "首 token 时间"), "s", "lower"),
    "latency/rest": Quantity(Bilingual("from the first token to the end", "首 token 之后至结束"), "s", "lower"),
    "latency/split": Quantity(
        Bilingual("all stages, each waiting for the device", "各阶段之和(逐阶段等待设备)"), "s", "lower"
    ),
    "latency/count": Quantity(Bilingual("tokens decoded", "解码 token 数"), "tokens", ""),
    "throughput/seconds": Quantity(Bilingual("a batch", "一批耗时"), "s", "lower"),
    "throughput/speed": Quantity(Bilingual("audio per second", "每秒处理音频"), "x", "higher"),
    "throughput/efficiency": Quantity(
        Bilingual("speed per utterance, of batch 1's", "相对批大小 1 的效率"), "1", "higher"
    ),
    "memory/weights": Quantity(Bilingual("weights, as files", "权重文件"), "bytes", "lower"),
    "memory/before": Quantity(Bilingual("device, before loading", "设备,加载前"), "bytes", "lower"),
    "memory/host-before": Quantity(Bilingual("host process, before loading", "主机进程,加载前"), "bytes", "lower"),
    "memory/loaded": Quantity(Bilingual("device, model loaded", "设备,加载后"), "bytes", "lower"),
    "memory/device-total": Quantity(Bilingual("device, all there is", "设备总量"), "bytes", ""),
    "memory/host-loaded": Quantity(Bilingual("host process, model loaded", "主机进程,加载后"), "bytes", "lower"),
    "memory/unloaded": Quantity(Bilingual("device, after unloading", "设备,卸载后"), "bytes", "lower"),
    "memory/host-unloaded": Quantity(Bilingual("host process, after unloading", "主机进程,卸载后"), "bytes", "lower"),
    "batch-memory/device": Quantity(Bilingual("device, peak", "设备峰值"), "bytes", "lower"),
    "batch-memory/host": Quantity(Bilingual("host process, peak", "主机进程峰值"), "bytes", "lower"),
    "length-memory/device": Quantity(Bilingual("device, peak", "设备峰值"), "bytes", "lower"),
    "length-memory/host": Quantity(Bilingual("host process, peak", "主机进程峰值"), "bytes", "lower"),
    "long/seconds": Quantity(Bilingual("whole", "总计"), "s", "lower"),
    "long/rtf": Quantity(Bilingual("RTF", "RTF"), "1", "lower"),
    "long/speed": Quantity(Bilingual("audio per second", "每秒处理音频"), "x", "higher"),
    **_served("closed"),
    **_served("open"),
    **_compared("alone", "one clip", "单条音频"),
    **_compared("batch", "batch of 8, mixed lengths", "批大小 8,长短混合"),
    **_compared("long", "5 minutes of audio", "5 分钟音频"),
    **_texts("texts", "audio of at most 8 s", "音频不超过 8 s"),
    **_texts("long-texts", "longer audio", "音频超过 8 s"),
    **_both("alone", "one clip: ", "单条音频:"),
    **_both("load", "", ""),
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
