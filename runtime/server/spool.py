"""Room on disk for what clients send and URLs answer: all files together are bounded, so that neither a host's disk nor
a pod's volume is filled."""

import errno
import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO

from env.field import variable
from runtime import audio
from runtime.audio import Audio, Limits
from runtime.sandbox import Cancellation

SETTING = variable("spool_max_mib")

IN_MEMORY = 1 << 20  # bytes of one file; the rest is on disk
ALL_IN_MEMORY = 32 << 20  # bytes of all files together, as hundreds may wait


class SpoolFullError(OSError):
    """Files would take more than they may: all together, or `yours`, those of one caller."""

    def __init__(self, most: int, *, yours: bool) -> None:
        whose = "your uploads" if yours else "all uploads"
        limit = f"a caller's part of {SETTING}" if yours else f"the limit ({SETTING})"
        super().__init__(errno.EDQUOT, f"{whose} together would take more than {most / 2**20:g} MiB on disk, {limit}")


class Spool:
    """Temporary files without a name, which together take at most `most` bytes on disk, those of one caller at most
    `each`; `taken` are."""

    def __init__(self, most: int, each: int) -> None:
        self.most, self.each = most, each
        self.taken = 0
        self.lock = threading.Lock()
        self._taken_by: Counter[str] = Counter()

    def open(self, in_memory: int, caller: str) -> "SpooledFile":
        """An empty file, of which so many bytes stay in memory, where they do not count."""
        return SpooledFile(self, in_memory, caller)

    def check(self, count: int, caller: str) -> None:
        """Raises SpoolFullError where there is no room for so many bytes more."""
        if self.taken + count > self.most:
            raise SpoolFullError(self.most, yours=False)
        if self._taken_by[caller] + count > self.each:
            raise SpoolFullError(self.each, yours=True)

    def add(self, count: int, caller: str) -> None:
        """So many bytes more, or less."""
        self.taken += count
        self._taken_by[caller] += count
        self._taken_by += Counter()  # forgets who has none


class SpooledFile(SpooledTemporaryFile[bytes]):
    """A file that is written once, from its start to its end, and read then. Writing raises SpoolFullError."""

    def __init__(self, spool: Spool, in_memory: int, caller: str) -> None:
        super().__init__(max_size=in_memory)
        self._spool, self._caller = spool, caller
        self._size = self._taken = 0
        self._on_disk = self._over = False

    def write(self, s: bytes) -> int:  # type: ignore[override]  # of text there is none
        """Write bytes, in memory while they are few."""
        self._size += len(s)
        if self._on_disk:
            self._take()
        return super().write(s)

    def rollover(self) -> None:
        """Go on on disk."""
        self._take()
        super().rollover()
        self._on_disk = True

    def on_disk(self, most: int) -> int:
        """The descriptor of an empty file, for another process to write at most `most` bytes to; until `settle`, they
        all count."""
        self._size = most
        self.rollover()
        return self.fileno()

    def settle(self) -> None:
        """That process has written; what it has not, no longer counts."""
        self._size = os.fstat(self.fileno()).st_size
        self._take()

    def close(self) -> None:
        """Forget it, which makes room."""
        super().close()
        with self._spool.lock:  # who writes to it may be another thread, and be late
            self._over = True
            self._spool.add(-self._taken, self._caller)
            self._taken = 0

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> None:
        """Room for all that was written. Raises ValueError where it is closed."""
        with self._spool.lock:
            if self._over:
                raise ValueError("I/O operation on closed file")
            more = self._size - self._taken
            self._spool.check(more, self._caller)
            self._spool.add(more, self._caller)
            self._taken = self._size


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
