"""Cuts a session's audio into turns, by voice activity or at the client's commits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runtime.audio import SAMPLE_RATE
from runtime.audio.voice_activity import ONSET, WINDOW, VoiceActivityDetector
from runtime.server.realtime.turn import AudioBuffer, Resampler, Turn


@dataclass(frozen=True)
class Detection:
    """Parameters of voice activity detection: the speech probability; seconds of audio before speech that belong to a
    turn; seconds of silence that end it."""

    threshold: float
    padding_seconds: float
    silence_seconds: float


class TurnDetector:
    """Detects turns in 16-bit mono PCM at `rate` Hz; `turn` is the open one.

    Without detection, a turn is open from the first audio until `commit`. No segment is longer than `longest` seconds.
    """

    def __init__(self, *, rate: int, detection: Detection | None, longest: float) -> None:
        self.turn: Turn | None = None
        self.buffer = AudioBuffer()
        self._longest = longest
        self._resampler = Resampler(rate)
        self._last_end = 0  # the sample after the last turn
        self._set_detection(detection)

    def reconfigure(self, *, rate: int, detection: Detection | None) -> None:
        """Change the rate or the detection; no turn may be open."""
        self._flush_resampler()
        self._resampler = Resampler(rate)
        self._set_detection(detection)

    def feed(self, pcm: bytes, *, new_turn: Callable[[int], Turn]) -> Iterator[Turn]:
        """Process whole samples; yield each turn that begins, and each that ends. `new_turn` makes a turn from its
        first sample's number."""
        start, samples = self.buffer.end, self._resampler.convert(pcm)
        self.buffer.append(samples)
        if self._vad:
            for change in self._vad.hear(samples):
                yield self._begin(change.at - self._padding, new_turn) if change.speaking else self._end(change.at)
        elif not self.turn and len(samples):
            yield self._begin(start, new_turn)
        if self.turn:
            self.turn.cut(self.buffer, longest=self._longest)
        self._trim()

    def commit(self, *, shortest: float) -> Turn | None:
        """End the open turn and return it; None if there is none. Without detection, a turn shorter than `shortest`
        seconds stays open."""
        self._flush_resampler()
        if not self.turn or (not self._vad and self.buffer.end - self.turn.start < shortest * SAMPLE_RATE):
            return None
        ended = self._end(self.buffer.end)
        self._trim()
        return ended

    def clear(self) -> Turn | None:
        """Drop the audio that belongs to no ended turn; return the turn that was open."""
        self._flush_resampler()
        dropped, self.turn = self.turn, None
        self._last_end = self.buffer.end
        self._trim()
        return dropped

    def _set_detection(self, detection: Detection | None) -> None:
        self._vad: VoiceActivityDetector | None = None
        self._padding = 0
        if detection:
            self._padding = round(detection.padding_seconds * SAMPLE_RATE)
            self._vad = VoiceActivityDetector(
                threshold=detection.threshold, silence_seconds=detection.silence_seconds, start=self.buffer.end
            )

    def _begin(self, at: int, new_turn: Callable[[int], Turn]) -> Turn:
        self.turn = new_turn(max(at, self._last_end, self.buffer.start))
        return self.turn

    def _end(self, at: int) -> Turn:
        assert self.turn, "a turn ends that did not begin"
        ended, self.turn = self.turn, None
        ended.close(self.buffer, at)
        self._last_end = ended.end or 0
        return ended

    def _flush_resampler(self) -> None:
        """Take in the some 10 ms that the resampler kept back, and restart the voice activity detection behind them."""
        self.buffer.append(self._resampler.flush())
        if self._vad:
            self._vad.restart(self.buffer.end)

    def _trim(self) -> None:
        """Drop audio that neither an open turn nor one that is about to begin needs."""
        ahead = self._padding + (ONSET + 1) * WINDOW if self._vad else 0
        self.buffer.forget(self.turn.open if self.turn else self.buffer.end - ahead)
