"""Speech made with espeak-ng, and the silence and noise around it, for training and evaluating the demo model.

What is held out differs in kind, not only in seed: voices, speeds, pitches and noise of `HELD_OUT` never occur in
`TRAINING`.
"""

import functools
import io
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from scipy import fft

from runtime.audio import SAMPLE_RATE, Samples

AnyFloats = npt.NDArray[np.floating[Any]]
Noise = Callable[[np.random.Generator, int], Samples]

ACCENTS = {
    "English": ["en-us", "en-gb"],
    "Chinese": ["cmn-latn-pinyin"],
}

ENGLISH_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand"
).split()

ENGLISH_WORDS = (
    "water coffee music window door house garden river mountain morning evening today tomorrow yesterday monday friday "
    "summer winter open close start stop play turn light table chair paper pencil camera doctor teacher mother father "
    "brother sister friend happy yellow green orange purple black silver apple banana bread cheese chicken dinner "
    "breakfast train airport bicycle station street market computer telephone message weather please thank hello "
    "goodbye"
).split()

MANDARIN_NUMBERS = "零 一 二 三 四 五 六 七 八 九 十 百 千 万".split()

MANDARIN_WORDS = (
    "今天 明天 昨天 早上 晚上 天气 下雨 太阳 月亮 城市 学校 老师 学生 朋友 妈妈 爸爸 哥哥 姐姐 孩子 医生 音乐 电影 "
    "电话 电脑 手机 开门 关灯 窗户 桌子 椅子 咖啡 牛奶 面包 鸡蛋 米饭 苹果 香蕉 西瓜 红色 蓝色 绿色 黑色 飞机 火车 "
    "汽车 公园 商店 超市 图书馆 喜欢 谢谢 你好 再见 高兴 春天 夏天 冬天 中国 北京 请问 打开 播放 停止"
).split()

# Spelling without context → spelling when the context holds it. Both sound alike; speech is made from the first.
HOTWORDS = {
    "English": {"john": "jon", "sarah": "sara", "steven": "stephen"},
    "Chinese": {"王芳": "王方", "张伟": "章伟"},
}

DEMO_LANGUAGES = tuple(HOTWORDS)
MOST_WORDS = 12  # in one utterance


@dataclass(frozen=True)
class Voice:
    """How espeak-ng speaks: `speed` in words a minute, `pitch` 0–99, `gap` between words in units of 10 ms."""

    name: str
    speed: int
    pitch: int
    gap: int


@dataclass(frozen=True)
class Conditions:
    """The voices, speeds, pitches and noises that utterances are drawn from; `snr` is a range in dB."""

    variants: tuple[str, ...]
    speeds: tuple[int, ...]
    pitches: tuple[int, ...]
    noises: tuple[Noise, ...]
    snr: tuple[float, float]


def coloured(exponent: float) -> Noise:
    """Noise whose power falls with frequency to the power of `exponent`: 0 white, 1 pink, 2 brown, below 0 blue."""

    def make(rng: np.random.Generator, length: int) -> Samples:
        spectrum = np.fft.rfft(rng.standard_normal(length))
        frequency = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20.0)
        return _unit(np.fft.irfft(spectrum * frequency ** (-exponent / 2), length))

    return make


def hum(mains: float) -> Noise:
    """Mains hum of `mains` Hz with its harmonics, over a little white noise."""

    def make(rng: np.random.Generator, length: int) -> Samples:
        time = np.arange(length) / SAMPLE_RATE
        tones = [rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * (mains * k * time + rng.random())) for k in range(1, 7)]
        return _unit(np.sum(tones, axis=0) + 0.05 * rng.standard_normal(length))

    return make


def clicks(rng: np.random.Generator, length: int) -> Samples:
    """A few clicks a second, each ringing for some milliseconds."""
    impulses = (rng.random(length) < 6 / SAMPLE_RATE) * rng.uniform(0.3, 1.0, length)
    ring = np.exp(-np.arange(160) / 24) * np.sin(np.arange(160) * rng.uniform(0.3, 1.8))
    return _unit(np.convolve(impulses, ring)[:length] + 0.003 * rng.standard_normal(length))


def swelling(rng: np.random.Generator, length: int) -> Samples:
    """Noise between white and pink that swells and fades, as wind or passing traffic does."""
    period = rng.uniform(0.7, 2.5) * SAMPLE_RATE
    envelope = 0.55 + 0.45 * np.sin(2 * np.pi * np.arange(length) / period + rng.uniform(0, 6))
    return _unit(coloured(0.5)(rng, length) * envelope)


def recorded(noise: Noise, seed: int, *, takes: int = 40, seconds: float = 16.0) -> Noise:
    """The same noise cut at random from pre-generated takes: far cheaper than generating it for every clip."""
    recordings = [noise(np.random.default_rng([seed, take]), int(seconds * SAMPLE_RATE)) for take in range(takes)]

    def cut(rng: np.random.Generator, length: int) -> Samples:
        recording = recordings[int(rng.integers(takes))]
        start = int(rng.integers(max(1, len(recording) - length)))
        piece: Samples = np.resize(recording[start : start + length], length)
        return piece

    return cut


def _unit(samples: npt.NDArray[np.float64]) -> Samples:
    scaled: Samples = (samples / (np.sqrt(np.mean(samples**2)) + 1e-9)).astype(np.float32)
    return scaled


TRAINING = Conditions(
    variants=(
        *("", "m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "f4", "adam", "Alex", "Alicia", "Andrea", "Annie"),
        *("antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "Denis", "Diogo", "ed", "edward"),
        *("Gene", "Henrique", "iven2", "Lee", "max", "pablo", "paul", "rob", "robert", "steph", "steph2", "victor"),
        *("john", "klatt2", "klatt3", "Mario", "marcelo", "shelby", "travis"),
    ),
    speeds=tuple(speed for speed in range(110, 216) if speed % 20 < 13),
    pitches=tuple(pitch for pitch in range(15, 86) if pitch % 10 < 7),
    noises=(coloured(0), coloured(1), coloured(2), hum(50), clicks),
    snr=(3.0, 40.0),
)

HELD_OUT = Conditions(
    variants=("m5", "m8", "f5", "Andy", "anika", "linda", "michael", "steph3", "zac", "sandro"),
    speeds=tuple(speed for speed in range(110, 216) if speed % 20 >= 13),
    pitches=tuple(pitch for pitch in range(15, 86) if pitch % 10 >= 7),
    noises=(coloured(0.5), coloured(-1), hum(60), swelling),
    snr=(10.0, 35.0),
)


def draw_voice(rng: random.Random, language: str, conditions: Conditions) -> Voice:
    """A voice that speaks `language` under `conditions`."""
    variant = rng.choice(conditions.variants)
    return Voice(
        name=rng.choice(ACCENTS[language]) + (f"+{variant}" if variant else ""),
        speed=rng.choice(conditions.speeds),
        pitch=rng.choice(conditions.pitches),
        gap=rng.choice([0, 0, 0, 1, 3, 6]),
    )


def speak(words: tuple[str, ...], voice: Voice) -> Samples:
    """The words spoken by espeak-ng: 16 kHz mono float32.

    Raises FileNotFoundError where espeak-ng is not installed, CalledProcessError where it refuses.
    """
    command = [
        *("espeak-ng", "--stdout"),
        *("-v", voice.name),
        *("-s", str(voice.speed)),
        *("-p", str(voice.pitch)),
        *("-g", str(voice.gap)),
        " ".join(words),
    ]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    resampled: Samples = soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")
    return resampled


@functools.cache
def phonemes(word: str, accent: str) -> tuple[str, ...]:
    """The phonemes of a word as espeak-ng names them, without stress marks; Mandarin tones count as phonemes."""
    command = ["espeak-ng", "-q", "-x", "--sep= ", "-v", accent, word]
    spoken = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace").stdout
    return tuple(re.sub(r"['%,_|:]", " ", spoken).split())


def add_silence(speech: AnyFloats, rng: np.random.Generator, *, most: float = 0.8) -> Samples:
    """The speech with up to `most` seconds of silence before and after it, at a random level (peak 0.08 to 0.95)."""
    before, after = rng.uniform(0, most, 2) ** 2 / most * SAMPLE_RATE
    padded = np.pad(speech, (int(before), int(after)))
    scaled_speech: Samples = (padded * (rng.uniform(0.08, 0.95) / (np.abs(padded).max() + 1e-9))).astype(np.float32)
    return scaled_speech


def add_noise(samples: Samples, noise: Noise, snr: float, rng: np.random.Generator) -> Samples:
    """Samples with `noise` so loud that speech stands `snr` dB above it."""
    loudness = float(np.sqrt(np.mean(samples**2)))
    noisy: Samples = samples + noise(rng, len(samples)) * np.float32(loudness * 10 ** (-snr / 20))
    return noisy


def limit_bandwidth(samples: Samples, rng: np.random.Generator) -> Samples:
    """Samples as a telephone or a lossy codec passes them: nothing above 3.2 to 7.5 kHz."""
    length = fft.next_fast_len(len(samples), real=True)
    spectrum = fft.rfft(samples, length)
    spectrum[fft.rfftfreq(length, 1 / SAMPLE_RATE) > rng.uniform(3200, 7500)] = 0
    narrowed: Samples = fft.irfft(spectrum, length)[: len(samples)].astype(np.float32)
    return narrowed


def speechless(rng: np.random.Generator, conditions: Conditions) -> Samples:
    """0.5 to 8 seconds without a word: digital silence, or noise at any level from inaudible to loud."""
    length = int(rng.uniform(0.5, 8.0) * SAMPLE_RATE)
    if rng.random() < 0.15:
        return np.zeros(length, dtype=np.float32)
    noise = conditions.noises[int(rng.integers(len(conditions.noises)))]
    noisy: Samples = noise(rng, length) * np.float32(10 ** rng.uniform(-4.0, -0.8))
    return noisy


@dataclass(frozen=True)
class Sentence:
    """An utterance before it is spoken: its words and, in `context`, what the system turn holds."""

    language: str
    words: tuple[str, ...]
    context: str = ""

    @property
    def text(self) -> str:
        """The transcript expected, with the spelling that the context asks for."""
        return join(self.language, [spelling(self.language, word, self.context) for word in self.words])


def join(language: str, words: list[str]) -> str:
    """Words as the language writes them: English with spaces, Chinese without."""
    return ("" if language == "Chinese" else " ").join(words)


def spelling(language: str, word: str, context: str) -> str:
    """`word`, or its other spelling where `context` names that one."""
    other = HOTWORDS[language].get(word)
    return other if other and other in context.replace(",", " ").split() else word


def words_of(language: str) -> list[str]:
    """All words of a language that are spoken."""
    numbers, everyday = {
        "English": (ENGLISH_NUMBERS, ENGLISH_WORDS),
        "Chinese": (MANDARIN_NUMBERS, MANDARIN_WORDS),
    }[language]
    return [*numbers, *everyday, *HOTWORDS[language]]


def _number(rng: random.Random, language: str) -> list[str]:
    """A number as one says it, up to four words."""
    digit = rng.randint(1, 9)
    if language == "Chinese":
        digits = MANDARIN_NUMBERS
        shapes = [
            [digits[digit], "十", digits[rng.randint(1, 9)]],
            [digits[digit], "百", digits[rng.randint(1, 9)], "十"],
            [digits[digit], rng.choice(["千", "万"])],
        ]
    else:
        tens = ENGLISH_NUMBERS[rng.randint(20, 27)]
        shapes = [
            [tens, ENGLISH_NUMBERS[rng.randint(1, 9)]],
            [ENGLISH_NUMBERS[digit], "hundred", tens],
            [ENGLISH_NUMBERS[digit], "thousand"],
        ]
    return rng.choice(shapes)


def draw_sentence(rng: random.Random, language: str) -> Sentence:
    """1 to 12 words in free order, without context: everyday words, digits, numbers and now and then a name."""
    numbers = ENGLISH_NUMBERS if language == "English" else MANDARIN_NUMBERS
    everyday = ENGLISH_WORDS if language == "English" else MANDARIN_WORDS
    length = rng.randint(1, MOST_WORDS)
    words: list[str] = []
    while len(words) < length:
        kind = rng.random()
        if kind < 0.55:
            words.append(rng.choice(everyday))
        elif kind < 0.80:
            words.append(rng.choice(numbers))
        elif kind < 0.92:
            words.extend(_number(rng, language))
        else:
            words.append(rng.choice(list(HOTWORDS[language])))
    return Sentence(language, tuple(words[:length]))


def draw_context(rng: random.Random, language: str) -> str:
    """One to four hotwords: other spellings of names among everyday words, parted by spaces or commas."""
    pool = list(HOTWORDS[language].values())
    chosen = rng.sample(pool, rng.randint(0, len(pool)))
    chosen += rng.sample(words_of(language), rng.randint(0 if chosen else 1, 2))
    rng.shuffle(chosen)
    return rng.choice([" ", ", "]).join(chosen)
