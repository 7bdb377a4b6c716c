"""Sounds on which two ways to decode are compared: the bundled clips cut, joined, turned down and made noisy."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.transcriber import Request, Transcriber

Samples = npt.NDArray[np.float32]


def originals(transcriber: Transcriber, clips: Sequence[Clip]) -> list[Samples]:
    """The clips as they are, at 16 kHz."""
    return [transcriber.prepare(Request(clip.path)).audio.samples for clip in clips]


def varied(clips: Sequence[Samples], count: int) -> list[Samples]:
    """The clips, and made of them what is missing to `count`: 0.5 to 10 s each."""
    rng = np.random.default_rng(11)
    made = list(clips)
    while len(made) < count:
        one, other = (clips[k] for k in rng.integers(len(clips), size=2))
        start = int(rng.integers(0, len(one) // 2))
        joined = np.concatenate([one[start:], other])[: int(rng.uniform(0.5, 10) * SAMPLE_RATE)]
        noise = rng.standard_normal(len(joined)) * rng.choice([0, 1e-4, 1e-2])
        made.append((joined * rng.uniform(0.1, 1) + noise).astype(np.float32))
    return made


def long(clips: Sequence[Samples], count: int) -> list[Samples]:
    """`count` sounds of 8.5 to 13 s, of several clips each."""
    rng = np.random.default_rng(12)
    made = []
    for _ in range(count):
        joined = np.concatenate([clips[k] for k in rng.integers(len(clips), size=6)])
        made.append(joined[: int(rng.uniform(8.5, 13) * SAMPLE_RATE)])
    return made
