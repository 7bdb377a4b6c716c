"""From sound to turns, cut by voice activity or by whoever sends the sound."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runtime.audio import SAMPLE_RATE
from runtime.audio.voice_activity import ONSET, WINDOW, VoiceActivityDetector
from runtime.server.realtime.turn import AudioBuffer, Resampler, Turn


@dataclass(frozen=True)
class Detection:
    """When speech begins and ends: a probability, seconds of sound that belong to it before it begins, and seconds of
    silence that end it."""

    threshold: float
    padding_seconds: float
    silence_seconds: float


class TurnDetector:
    """Hears 16-bit mono PCM at `rate` Hz; `turn` is the one that is open.

    Without a detection, a turn is open as soon as there is sound, until `commit`. No segment is longer than `longest`
    seconds.
    """

    def __init__(self, *, rate: int, detection: Detection | None, longest: float) -> None:
        self.turn: Turn | None = None
        self.tape = AudioBuffer()
        self._longest = longest
        self._resampler = Resampler(rate)
        self._over = 0  # the sample after the last turn
        self._detect(detection)

    def tune(self, *, rate: int, detection: Detection | None) -> None:
        """Hear otherwise from now on; no turn may be open."""
        self._tail()
        self._resampler = Resampler(rate)
        self._detect(detection)

    def hear(self, pcm: bytes, *, new_turn: Callable[[int], Turn]) -> Iterator[Turn]:
        """Each turn that begins, and each that ends, while this comes; whole samples. `new_turn` makes a turn that
        begins with a sample."""
        start, samples = self.tape.end, self._resampler.convert(pcm)
        self.tape.append(samples)
        if self._voice:
            for change in self._voice.hear(samples):
                yield self._begin(change.at - self._padding, new_turn) if change.speaking else self._end(change.at)
        elif not self.turn and len(samples):
            yield self._begin(start, new_turn)
        if self.turn:
            self.turn.cut(self.tape, longest=self._longest)
        self._forget()

    def commit(self, *, shortest: float) -> Turn | None:
        """End the open turn now. None if there is none; one without a voice to follow stays open until it lasts
        `shortest` seconds."""
        self._tail()
        if not self.turn or (not self._voice and self.tape.end - self.turn.start < shortest * SAMPLE_RATE):
            return None
        ended = self._end(self.tape.end)
        self._forget()
        return ended

    def clear(self) -> Turn | None:
        """Forget what is not part of a turn that is over; returns the turn that was open."""
        self._tail()
        dropped, self.turn = self.turn, None
        self._over = self.tape.end
        self._forget()
        return dropped

    def _detect(self, detection: Detection | None) -> None:
        self._voice: VoiceActivityDetector | None = None
        self._padding = 0
        if detection:
            self._padding = round(detection.padding_seconds * SAMPLE_RATE)
            self._voice = VoiceActivityDetector(
                threshold=detection.threshold, silence_seconds=detection.silence_seconds, start=self.tape.end
            )

    def _begin(self, at: int, new_turn: Callable[[int], Turn]) -> Turn:
        self.turn = new_turn(max(at, self._over, self.tape.start))
        return self.turn

    def _end(self, at: int) -> Turn:
        assert self.turn, "a turn ends that did not begin"
        ended, self.turn = self.turn, None
        ended.close(self.tape, at)
        self._over = ended.end or 0
        return ended

    def _tail(self) -> None:
        """Bring in what the resampler has kept back, some 10 ms; the voice is followed anew behind it."""
        self.tape.append(self._resampler.flush())
        if self._voice:
            self._voice.restart(self.tape.end)

    def _forget(self) -> None:
        """Keep what an open turn, or one that is about to begin, has to have."""
        ahead = self._padding + (ONSET + 1) * WINDOW if self._voice else 0
        self.tape.forget(self.turn.open if self.turn else self.tape.end - ahead)
