"""When the sound of a file is heard: the container's time stamps against the sound that the decoder hands out.

A track may begin late, pause, drift, or be made of parts whose clocks have nothing to do with each other; the decoded
samples alone tell nothing of this.
"""

import math
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

TOLERANCE = 0.025  # seconds by which a frame may stray from where the sound before it ends: rounding, jitter
GAP = 0.1  # seconds of delay from which silence is put in; less is jitter or a lost packet, and corrects the clock only
# Seconds; where clocks may jump, a longer step ahead of all streams begins a new part (FFmpeg's dts_delta_threshold).
JUMP = 10.0


@dataclass(frozen=True)
class PlayerClock:
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

    def __init__(self, zero: float = 0.0, *, longest_pause: float = math.inf) -> None:
        """`zero` is the time stamp at which the player's clock starts, in seconds.

        A step ahead of more than `longest_pause` seconds begins a new part. So does one of more than JUMP where
        streams beside the sound make the same step.
        """
        self.seconds = 0.0  # of sound and silence so far
        self.clock = PlayerClock()
        self.zero = self._last = zero
        self.longest_pause = longest_pause
        self._corrected = 0.0, 0.0  # the latest position and time in `clock`
        self._reached = zero  # the latest time stamp of any stream, but for steps of more than JUMP
        self._beside = -math.inf  # the latest one of another stream

    @property
    def may_jump(self) -> bool:
        """Whether the file may be made of parts with clocks of their own."""
        return self.longest_pause < math.inf

    def pass_beside(self, time: float) -> None:
        """Take note of the time stamp of another stream: where it runs on, the sound merely pauses."""
        if abs(time - self._reached) <= JUMP:
            self._reached = max(self._reached, time)
            self._beside = self._reached

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
                if time <= self._last or (self.seconds and self._is_jump(time, late)):
                    self.zero = time - now
                    self._reached = time
                elif late >= GAP:
                    silence = late
                else:
                    self._corrected = self.seconds, now + late
                    self.clock.positions.append(self.seconds)
                    self.clock.times.append(now + late)
            self._last = time
            self._reached = max(self._reached, time)
        self.seconds += silence + seconds
        return silence

    def _is_jump(self, time: float, late: float) -> bool:
        """Whether a step ahead to `time` is one of the clock, not a pause in the sound."""
        accompanied = self._beside >= self._last - JUMP
        return late > self.longest_pause or (self.may_jump and accompanied and time > self._reached + JUMP)
