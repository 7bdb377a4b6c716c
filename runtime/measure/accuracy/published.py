"""What others state for the common data sets, to stand beside what was measured here.

They normalise texts in other ways than the kit does, so a difference of some tenths says little.
"""

import re
from dataclasses import dataclass, replace

from env.settings import DEMO
from runtime.demo import HELD_OUT_SET
from runtime.measure.accuracy.dataset import DataSet
from runtime.measure.accuracy.layouts import read
from runtime.measure.error_rate import Unit

CARD = "Qwen3-ASR, README.md, section Evaluation (github.com/QwenLM/Qwen3-ASR)"
GATE = "vllm-ascend, nightly test of Qwen3-ASR-1.7B (its pull request 7804): the most that passes, on 500 clips"
LARGE, SMALL = "Qwen3-ASR-1.7B", "Qwen3-ASR-0.6B"


@dataclass(frozen=True)
class Published:
    """An error rate as a share, of a model on a set, with the source that states it."""

    model: str
    data: str
    unit: Unit
    rate: float
    source: str


@dataclass(frozen=True)
class _Known:
    """A set: its layout, what its name must have in it, its language, and the rates of both models in per cent."""

    data: str
    layout: str
    name: str
    language: str
    unit: Unit
    large: float
    small: float


# Greedy decoding, bfloat16, no language given.
_KNOWN = (
    _Known("LibriSpeech test-clean", "librispeech", r"test-clean", "English", "words", 1.63, 2.11),
    _Known("LibriSpeech test-other", "librispeech", r"test-other", "English", "words", 3.38, 4.55),
    _Known("FLEURS English", "fleurs", r"\btest\b", "English", "words", 3.35, 4.39),
    _Known("FLEURS Chinese", "fleurs", r"\btest\b", "Chinese", "characters", 2.41, 2.88),
    _Known("FLEURS Cantonese", "fleurs", r"\btest\b", "Cantonese", "characters", 3.98, 5.79),
    _Known("Common Voice en", "common-voice", r"\btest\b", "English", "words", 7.39, 9.92),
    _Known("Common Voice zh-CN", "common-voice", r"\bzh-CN\b.*\btest\b", "Chinese", "characters", 5.35, 6.89),
    _Known("Common Voice zh-TW", "common-voice", r"\bzh-TW\b.*\btest\b", "Chinese", "characters", 3.77, 5.59),
    _Known("Common Voice yue", "common-voice", r"\byue\b.*\btest\b", "Cantonese", "characters", 7.57, 9.50),
)


def published(data: DataSet) -> tuple[Published, ...]:
    """What is stated for a data set, empty for one of which nothing is known."""
    spoken = {item.language for item in data.items}
    found = [
        Published(model, known.data, known.unit, round(rate / 100, 6), CARD)
        for known in _KNOWN
        if known.layout == data.layout and spoken == {known.language} and re.search(known.name, data.name)
        for model, rate in ((LARGE, known.large), (SMALL, known.small))
    ]
    if data.layout == "librispeech":
        found.append(Published(LARGE, "LibriSpeech", "words", 0.035, GATE))
    return tuple(found)


def data_set() -> DataSet:
    """Speech of espeak-ng that training never had; the speaker is a voice of it. The texts are plain: as the model
    writes them, and as its card was scored."""
    return replace(read(HELD_OUT_SET), name="demo model, held-out", layout=DEMO, plain=True)
