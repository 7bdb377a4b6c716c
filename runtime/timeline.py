"""When the sound of a file is heard: the container's time stamps against the sound that the decoder hands out.

A track may begin late, pause, drift, or be made of parts whose clocks have nothing to do with each other; the decoded
samples alone tell nothing of this.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

TOLERANCE = 0.025  # seconds by which a frame may stray from where the sound before it ends: rounding, jitter
GAP = 0.1  # seconds of delay from which silence is put in; less is jitter or a lost packet, and corrects the clock only
# Seconds; a longer step ahead begins a new part, in a format whose clocks may jump (FFmpeg's dts_delta_threshold).
JUMP = 10.0


@dataclass(frozen=True)
class Clock:
    """Corrections of the player's clock: where `positions[k]` seconds of the sound are over, it shows `times[k]`.

    Both ascend. Without corrections the clock runs with the sound from 0 s on.
    """

    positions: "array[float]" = field(default_factory=lambda: array("d"))
    times: "array[float]" = field(default_factory=lambda: array("d"))

    def time_at(self, position: float) -> float:
        """What the clock shows, in seconds, after so many seconds of the sound; it never runs backwards."""
        known = bisect_right(self.positions, position)
        time = self.times[known - 1] + position - self.positions[known - 1] if known else position
        return min(time, self.times[known]) if known < len(self.times) else time


class Timeline:
    """Places the frames of one track, in the order in which they are decoded."""

    def __init__(self, zero: float = 0.0, *, may_jump: bool = False) -> None:
        """`zero` is the time stamp at which the player's clock starts, in seconds. `may_jump`: see JUMP."""
        self.seconds = 0.0  # of sound and silence so far
        self.clock = Clock()
        self.zero = self._last = zero
        self.may_jump = may_jump
        self._corrected = 0.0, 0.0  # the latest position and time in `clock`

    def place(self, time: float | None, seconds: float) -> float:
        """Place a frame that lasts `seconds` and has the time stamp `time`; returns the seconds of silence before it.

        A frame without a time stamp follows at once. So does a frame that strays and is not later than the one before
        it: a new part begins with a clock of its own, or the clock is stuck.
        """
        silence = 0.0
        if time is not None:
            position, shown = self._corrected
            now = shown + self.seconds - position
            late = time - self.zero - now
            if abs(late) > TOLERANCE:
                if time <= self._last or (self.may_jump and self.seconds and late > JUMP):
                    self.zero = time - now
                elif late >= GAP:
                    silence = late
                else:
                    self._corrected = self.seconds, now + late
                    self.clock.positions.append(self.seconds)
                    self.clock.times.append(now + late)
            self._last = time
        self.seconds += silence + seconds
        return silence
