"""Audio that waits for its turn, as it came: in memory if it is little, else in a file without a name."""

from dataclasses import dataclass, field
from typing import IO

from runtime import audio
from runtime.audio import Audio, Limits
from runtime.sandbox import Cancellation

IN_MEMORY = 1 << 20  # bytes of one file; the rest is on disk
ALL_IN_MEMORY = 32 << 20  # bytes of all files together, as hundreds may wait


@dataclass(frozen=True)
class Upload:
    """Audio as a client sent it or a URL answered it, under the name that it has there. `cancellation` ends reading
    it."""

    file: IO[bytes]
    name: str
    cancellation: Cancellation = field(default_factory=Cancellation, compare=False)

    def load(self, *, limits: Limits) -> Audio:
        """Decode it. Raises KitError like `runtime.audio.load`."""
        return audio.load(self.file, limits=limits, name=self.name, cancellation=self.cancellation)

    def close(self) -> None:
        """Forget it."""
        self.file.close()


def most_in_memory(requests: int) -> int:
    """Bytes of a file that stay in memory while there are so many requests."""
    return min(IN_MEMORY, ALL_IN_MEMORY // max(requests, 1))
