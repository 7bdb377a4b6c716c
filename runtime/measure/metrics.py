"""All that is measured: its name in both languages, its unit, and which way is better. The one place for it."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", ""]
Language = Literal["en", "zh"]

DIGITS = 4  # significant ones, as many as the spread of a good measurement leaves meaning
UNKNOWN = "–"


@dataclass(frozen=True)
class Words:
    """The same in English and Chinese."""

    en: str
    zh: str

    def __getitem__(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


@dataclass(frozen=True)
class Part:
    """A part of the benchmark, with what its figures' `at` counts; empty words where they have none."""

    name: Words
    axis: Words


@dataclass(frozen=True)
class Quantity:
    """What is measured. Units: s, bytes, x (seconds of audio per second), 1 (a ratio or share), or what is counted."""

    name: Words
    unit: str
    better: Better


_NONE = Words("", "")
_UTTERANCES = Words("utterances in a batch", "批内语音段数")
_SEGMENT = Words("seconds of a segment, at most ASR_SEGMENT_SECONDS", "单个语音段秒数,上限 ASR_SEGMENT_SECONDS")
_MINUTES = Words("minutes of audio", "音频分钟数")
_CLIENTS = Words("clients", "并发客户端数")
_RATE = Words("requests per second", "每秒请求数")

PARTS: dict[str, Part] = {
    "loading": Part(Words("Loading", "加载"), _NONE),
    "latency": Part(Words("Latency of one clip", "单条音频延迟"), _NONE),
    "throughput": Part(Words("Throughput over batch", "不同批大小的吞吐"), _UTTERANCES),
    "memory": Part(Words("Memory", "内存与显存"), _NONE),
    "batch-memory": Part(Words("Memory over batch", "不同批大小的内存峰值"), _UTTERANCES),
    "length-memory": Part(Words("Memory over length", "不同音频长度的内存峰值"), _SEGMENT),
    "long": Part(Words("Long audio", "长音频"), _MINUTES),
    "closed": Part(Words("Server, closed arrival", "服务并发:闭环到达"), _CLIENTS),
    "open": Part(Words("Server, open arrival", "服务并发:开环到达"), _RATE),
    "engines": Part(Words("Side by side with qwen-asr", "与 qwen-asr 对比"), _NONE),
    "vllm": Part(Words("Side by side: transformers and vLLM", "transformers 与 vLLM 对比"), _CLIENTS),
    "host": Part(Words("Cost on the host (simulated NPU)", "主机侧开销(模拟 NPU)"), _UTTERANCES),
}


def _served(part: str) -> dict[str, Quantity]:
    return {
        f"{part}/latency": Quantity(Words("from asking to the whole text", "从请求到完整文本"), "s", "lower"),
        f"{part}/first-token": Quantity(Words("time to first token", "首 token 时间"), "s", "lower"),
        f"{part}/rtf": Quantity(Words("RTF of a request", "单请求 RTF"), "1", "lower"),
        f"{part}/throughput": Quantity(Words("throughput", "吞吐"), "x", "higher"),
        f"{part}/errors": Quantity(Words("failed requests", "失败请求数"), "requests", "lower"),
    }


def _compared(name: str, english: str, chinese: str) -> dict[str, Quantity]:
    who = {
        "kit": Words("the kit", "本套件"),
        "qwen-asr": Words("qwen-asr's transcribe", "qwen-asr 自带 transcribe"),
        "first-validation": Words("as in the first validation", "首次验证的做法"),
    }
    seconds = {
        f"engines/{name}/{key}": Quantity(Words(f"{english}: {words.en}", f"{chinese}:{words.zh}"), "s", "lower")
        for key, words in who.items()
    }
    ratios = {
        f"engines/{name}/{key}-ratio": Quantity(
            Words(f"{english}: {words.en}, times the kit's", f"{chinese}:{words.zh},为本套件的倍数"), "1", ""
        )
        for key, words in who.items()
        if key != "kit"
    }
    tokens = {
        f"engines/{name}/{key}-tokens": Quantity(
            Words(f"{english}: tokens decoded, {words.en}", f"{chinese}:解码 token 数,{words.zh}"), "tokens", ""
        )
        for key, words in who.items()
    }
    return seconds | ratios | tokens


def _both(name: str, english: str, chinese: str) -> dict[str, Quantity]:
    """Of both engines, and the ratios of vLLM's to those of transformers."""
    measured: dict[str, tuple[Words, str, Better]] = {
        "latency": (Words("latency", "延迟"), "s", "lower"),
        "first-token": (Words("time to first token", "首 token 时间"), "s", "lower"),
        "throughput": (Words("throughput", "吞吐"), "x", "higher"),
        "errors": (Words("failed requests", "失败请求数"), "requests", "lower"),
    }
    found = {}
    for key, (words, unit, better) in measured.items():
        for engine, shown in (("transformers", "transformers"), ("vllm", "vLLM")):
            both = Words(f"{english}{words.en}, {shown}", f"{chinese}{words.zh},{shown}")
            found[f"vllm/{name}/{engine}-{key}"] = Quantity(both, unit, better)
        ratio = Words(f"{english}{words.en}, vLLM / transformers", f"{chinese}{words.zh},vLLM / transformers")
        found[f"vllm/{name}/{key}-ratio"] = Quantity(ratio, "1", "")
    return found


def _texts(key: str, english: str, chinese: str) -> dict[str, Quantity]:
    return {
        f"vllm/{key}": Quantity(
            Words(f"transcripts compared, {english}", f"对比的文本数,{chinese}"), "transcripts", ""
        ),
        f"vllm/{key}-differing": Quantity(
            Words(f"transcripts that differ, {english}", f"不同的文本数,{chinese}"), "transcripts", "lower"
        ),
    }


def _host_cost(key: str, who: str) -> dict[str, Quantity]:
    counts = (("launches", Words("kernels", "核函数启动"), "launches"), ("waits", Words("waits", "设备等待"), "waits"))
    return {
        f"host/{key}{prefix}{name}": Quantity(
            Words(f"{who}{counted.en} {per.en}", f"{who}{per.zh}{counted.zh}次数"), unit, "lower"
        )
        for prefix, per in (
            ("", Words("per step (a token of each)", "每步(每段一个 token)")),
            ("first-", Words("per utterance, up to the first token", "每段至首个 token ")),
        )
        for name, counted, unit in counts
    }


# By the part, a slash, and the quantity's own name.
QUANTITIES: dict[str, Quantity] = {
    "loading/seconds": Quantity(Words("loading the model", "加载模型"), "s", "lower"),
    "loading/first": Quantity(Words("first transcription after loading", "加载后首次转写"), "s", "lower"),
    "latency/total": Quantity(Words("whole", "总计"), "s", "lower"),
    "latency/rtf": Quantity(Words("RTF", "RTF"), "1", "lower"),
    "latency/audio": Quantity(Words("decoding the audio file", "音频解码"), "s", "lower"),
    "latency/features": Quantity(Words("features", "特征提取"), "s", "lower"),
    "latency/encoder": Quantity(Words("audio encoder", "音频编码器"), "s", "lower"),
    "latency/prefill": Quantity(Words("prefill", "预填充"), "s", "lower"),
    "latency/token": Quantity(Words("decoding a token", "单 token 解码"), "s", "lower"),
    "latency/tokens": Quantity(Words("decoding all tokens", "全部 token 解码"), "s", "lower"),
    "latency/text": Quantity(Words("tokens to text", "token 转文本"), "s", "lower"),
    "latency/first-token": Quantity(Words("time to first token", "首 token 时间"), "s", "lower"),
    "latency/rest": Quantity(Words("from the first token to the end", "首 token 之后至结束"), "s", "lower"),
    "latency/split": Quantity(
        Words("all stages, each waiting for the device", "各阶段之和(逐阶段等待设备)"), "s", "lower"
    ),
    "latency/count": Quantity(Words("tokens decoded", "解码 token 数"), "tokens", ""),
    "throughput/seconds": Quantity(Words("a batch", "一批耗时"), "s", "lower"),
    "throughput/speed": Quantity(Words("audio per second", "每秒处理音频"), "x", "higher"),
    "throughput/efficiency": Quantity(Words("speed per utterance, of batch 1's", "相对批大小 1 的效率"), "1", "higher"),
    "memory/weights": Quantity(Words("weights, as files", "权重文件"), "bytes", "lower"),
    "memory/before": Quantity(Words("device, before loading", "设备,加载前"), "bytes", "lower"),
    "memory/host-before": Quantity(Words("host process, before loading", "主机进程,加载前"), "bytes", "lower"),
    "memory/loaded": Quantity(Words("device, model loaded", "设备,加载后"), "bytes", "lower"),
    "memory/device-total": Quantity(Words("device, all there is", "设备总量"), "bytes", ""),
    "memory/host-loaded": Quantity(Words("host process, model loaded", "主机进程,加载后"), "bytes", "lower"),
    "memory/unloaded": Quantity(Words("device, after unloading", "设备,卸载后"), "bytes", "lower"),
    "memory/host-unloaded": Quantity(Words("host process, after unloading", "主机进程,卸载后"), "bytes", "lower"),
    "batch-memory/device": Quantity(Words("device, peak", "设备峰值"), "bytes", "lower"),
    "batch-memory/host": Quantity(Words("host process, peak", "主机进程峰值"), "bytes", "lower"),
    "length-memory/device": Quantity(Words("device, peak", "设备峰值"), "bytes", "lower"),
    "length-memory/host": Quantity(Words("host process, peak", "主机进程峰值"), "bytes", "lower"),
    "long/seconds": Quantity(Words("whole", "总计"), "s", "lower"),
    "long/rtf": Quantity(Words("RTF", "RTF"), "1", "lower"),
    "long/speed": Quantity(Words("audio per second", "每秒处理音频"), "x", "higher"),
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
