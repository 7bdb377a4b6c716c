"""How often something that crashes is started again: the server by its supervisor, the engine by the server."""

import json
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from runtime.files import write_whole


@dataclass(frozen=True)
class Policy:
    """At most `restarts` restarts within `window` seconds, after a pause of `pause` seconds that doubles with each
    crash in that time. A device's faults are retried without limit; their pause doubles up to `max_pause`."""

    restarts: int = 3
    window: float = 3600.0
    pause: float = 1.0
    max_pause: float = 300.0  # as Kubernetes' CrashLoopBackOff

    @property
    def last_pause(self) -> float:
        """The pause before the last restart, in seconds."""
        return float(self.pause * 2 ** (self.restarts - 1))

    def backoff(self, failures: int) -> float:
        """The pause in seconds after so many failures within the window, where retries have no limit."""
        return float(min(self.pause * 2.0 ** (failures - 1), self.max_pause)) if failures else 0.0

    def __str__(self) -> str:
        return f"{count_times(self.restarts)} within {self.window:.0f} s"


DEFAULT_POLICY = Policy()


def count_times(count: int) -> str:
    """A count in words: `once`, `3 times`."""
    return "once" if count == 1 else f"{count} times"


class Crashes:
    """The crashes of one process or engine. Times are seconds of any monotonic clock."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._times: list[float] = []

    def add(self, now: float) -> float | None:
        """Count a crash; returns the seconds to wait before the next start, None if it is not to be started again."""
        self._times = [then for then in self._times if now - then < self.policy.window]
        self._times.append(now)
        if len(self._times) > self.policy.restarts:
            return None
        return float(self.policy.pause * 2 ** (len(self._times) - 1))


@dataclass(frozen=True)
class EngineFailures:
    """When engines were lost within the policy's window, in seconds since 1970, and the reason for the last loss."""

    times: tuple[float, ...] = ()
    reason: str = ""

    @classmethod
    def read(cls, path: Path, now: float, policy: Policy) -> "EngineFailures":
        """The failures that still count; none if the file is missing or damaged."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            times = tuple(float(then) for then in found["times"])
            return cls(tuple(then for then in times if 0 <= now - then < policy.window), str(found["reason"]))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def add(self, path: Path, now: float, reason: str) -> None:
        """Write these and one more. Raises KitError if the file cannot be written."""
        write_whole(path, json.dumps({"times": [*self.times, now], "reason": reason}) + "\n")

    def pause(self, now: float, policy: Policy) -> float:
        """Seconds until the next engine may be loaded."""
        return max(0.0, self.times[-1] + policy.backoff(len(self.times)) - now) if self.times else 0.0


def clear_failures(path: Path) -> None:
    """Forget the failures: whoever stops a server may have repaired its device. Raises KitError if the file cannot be
    removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise KitError(str(path), f"cannot be removed: {error.strerror}") from None
