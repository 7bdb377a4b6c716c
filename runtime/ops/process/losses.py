"""The engines that a server has lost, one process after the other.

They are kept in a file, so that the model is loaded more and more seldom, whoever starts the process again: its
supervisor, or a container's restart policy. The new process waits before it touches the device, which nobody holds
meanwhile, and says so to whoever asks.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from runtime.ops.files import write_whole
from runtime.ops.process.crashes import Policy


@dataclass(frozen=True)
class Losses:
    """When engines were lost within the policy's window, in seconds since 1970, and why the last one was."""

    times: tuple[float, ...] = ()
    reason: str = ""

    @classmethod
    def read(cls, path: Path, now: float, policy: Policy) -> "Losses":
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
