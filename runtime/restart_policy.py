"""How often what has crashed is started again: the server by its supervisor, the engine by the server."""

import json
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from runtime.files import write_whole


@dataclass(frozen=True)
class Policy:
    """Start again at most `restarts` times within `window` seconds, after a pause of `pause` seconds that doubles with
    each crash in that time. What fails because of a device is tried on and on; then `longest` is where the pause ends
    to double."""

    restarts: int = 3
    window: float = 3600.0
    pause: float = 1.0
    longest: float = 300.0  # as Kubernetes' CrashLoopBackOff

    @property
    def longest_pause(self) -> float:
        """The pause before the last restart, in seconds."""
        return float(self.pause * 2 ** (self.restarts - 1))

    def backoff(self, failures: int) -> float:
        """The pause after so many failures within the window, in seconds, where it is tried on and on."""
        return float(min(self.pause * 2.0 ** (failures - 1), self.longest)) if failures else 0.0

    def __str__(self) -> str:
        return f"{times(self.restarts)} within {self.window:.0f} s"


USUAL = Policy()


def times(count: int) -> str:
    """So many times, in words."""
    return "once" if count == 1 else f"{count} times"


class Crashes:
    """Those of one thing; times are of any clock that never goes back, in seconds."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._times: list[float] = []

    def add(self, now: float) -> float | None:
        """One more, `now`; returns the seconds to wait before the next start, None where there shall be none."""
        self._times = [then for then in self._times if now - then < self.policy.window]
        self._times.append(now)
        if len(self._times) > self.policy.restarts:
            return None
        return float(self.policy.pause * 2 ** (len(self._times) - 1))


@dataclass(frozen=True)
class EngineFailures:
    """When engines were lost within the policy's window, in seconds since 1970, and why the last one was."""

    times: tuple[float, ...] = ()
    reason: str = ""

    @classmethod
    def read(cls, path: Path, now: float, policy: Policy) -> "EngineFailures":
        """Those that still count; none where the file cannot be understood."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            times = tuple(float(then) for then in found["times"])
            return cls(tuple(then for then in times if 0 <= now - then < policy.window), str(found["reason"]))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def add(self, path: Path, now: float, reason: str) -> None:
        """One more. Raises KitError where it cannot be written."""
        write_whole(path, json.dumps({"times": [*self.times, now], "reason": reason}) + "\n")

    def pause(self, now: float, policy: Policy) -> float:
        """Seconds until the next engine is due."""
        return max(0.0, self.times[-1] + policy.backoff(len(self.times)) - now) if self.times else 0.0


def forget(path: Path) -> None:
    """Whoever stops a server may have seen to its device. Raises KitError where the file cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise KitError(str(path), f"cannot be removed: {error.strerror}") from None
