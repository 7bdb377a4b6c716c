"""A turn: what somebody says in one go, however long, as segments that a model can take."""

from collections import deque
from dataclasses import dataclass, field

from env.errors import KitError
from runtime.audio import SAMPLE_RATE, Samples
from runtime.live.tape import Tape, quietest
from runtime.live.words import Words

# A segment is decoded anew for each second that is added to it, so its length bounds the cost of a second of sound:
# (1 + 2 + … + 12) / 12 + 1 = 7.5 s are decoded for it. 12 s hold three or four sentences, and the first one is told
# long before.
LONGEST = 12.0  # seconds
# From here on a pause ends the segment. The pauses in Silero's sense end the turn; these are shorter ones.
PAUSES_FROM = 8.0  # seconds
PAUSE_LEVEL = -20.0  # dB relative to the segment: a breath between words, while the stop in a word is shorter


@dataclass(eq=False)
class Turn:
    """From sample `start` of the sound; once it is over, up to sample `end`.

    `cuts` are the segments that are whole but not yet decoded; `open` is the first sample of the one that still grows.
    """

    id: str
    prompt: str
    start: int
    words: Words
    open: int
    end: int | None = None
    cuts: deque[Samples] = field(default_factory=deque)
    heard: int = 0  # samples of the growing segment that were decoded in the meantime
    failure: KitError | None = None  # why a segment of it could not be decoded

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        assert self.end is not None, "the turn is not over"
        return (self.end - self.start) / SAMPLE_RATE

    def cut(self, tape: Tape, *, longest: float) -> None:
        """End the growing segment if it must end, or may and there is a pause.

        It ends where it is quietest, in its later half and behind all words of it that were told.
        """
        length = tape.end - self.open
        if length < min(PAUSES_FROM, longest) * SAMPLE_RATE:
            return
        samples = tape.between(self.open, tape.end)
        reach = 0 if self.cuts else self.words.reach
        place, level = quietest(samples, earliest=max(reach, length // 2))
        if level < PAUSE_LEVEL or length >= longest * SAMPLE_RATE:
            self.cuts.append(samples[:place])
            self.open, self.heard = self.open + place, 0

    def close(self, tape: Tape, at: int) -> None:
        """It is over at sample `at`."""
        self.end = max(at, self.open)
        if self.end > self.open:
            self.cuts.append(tape.between(self.open, self.end))
