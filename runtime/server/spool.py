"""Temporary files for uploads and fetched audio, bounded together, so that they never fill a host's disk or a pod's
volume."""

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

SPOOL_SETTING = variable("spool_max_mib")

MAX_IN_MEMORY = 1 << 20  # bytes of one file; the rest is on disk
TOTAL_IN_MEMORY = 32 << 20  # bytes of all files together, as hundreds may wait


class SpoolFullError(OSError):
    """The spool is full: for all files together, or with `by_caller`, for one caller's."""

    def __init__(self, limit: int, *, by_caller: bool) -> None:
        whose = "your uploads" if by_caller else "all uploads"
        which = f"a caller's part of {SPOOL_SETTING}" if by_caller else f"the limit ({SPOOL_SETTING})"
        super().__init__(errno.EDQUOT, f"{whose} together would take more than {limit / 2**20:g} MiB on disk, {which}")


class Spool:
    """Unnamed temporary files, which may take `limit` bytes on disk together, those of one caller `caller_limit`;
    `used` are taken."""

    def __init__(self, limit: int, caller_limit: int) -> None:
        self.limit, self.caller_limit = limit, caller_limit
        self.used = 0
        self.lock = threading.Lock()
        self._used_by: Counter[str] = Counter()

    def open(self, in_memory: int, caller: str) -> "SpooledFile":
        """Open an empty file; up to `in_memory` bytes stay in memory, uncounted."""
        return SpooledFile(self, in_memory, caller)

    def check(self, count: int, caller: str) -> None:
        """Raise SpoolFullError if there is no room for `count` more bytes."""
        if self.used + count > self.limit:
            raise SpoolFullError(self.limit, by_caller=False)
        if self._used_by[caller] + count > self.caller_limit:
            raise SpoolFullError(self.caller_limit, by_caller=True)

    def add(self, count: int, caller: str) -> None:
        """Count so many bytes more, or fewer; the caller holds `lock`."""
        self.used += count
        self._used_by[caller] += count
        self._used_by += Counter()  # forgets who has none


class SpooledFile(SpooledTemporaryFile[bytes]):
    """A temporary file that is written from start to end, then read. Writing raises SpoolFullError."""

    def __init__(self, spool: Spool, in_memory: int, caller: str) -> None:
        super().__init__(max_size=in_memory)
        self._spool, self._caller = spool, caller
        self._size = self._reserved = 0
        self._is_on_disk = self._is_closed = False

    def write(self, s: bytes) -> int:  # type: ignore[override]  # of text there is none
        """Write bytes, in memory while they are few."""
        self._size += len(s)
        if self._is_on_disk:
            self._reserve()
        return super().write(s)

    def rollover(self) -> None:
        """Move to disk, counting what was written."""
        self._reserve()
        super().rollover()
        self._is_on_disk = True

    def write_externally(self, limit: int) -> int:
        """Reserve `limit` bytes, and return the empty file's descriptor for another process to write to."""
        self._size = limit
        self.rollover()
        return self.fileno()

    def finish_external_write(self) -> None:
        """The other process is done: release what it has not written."""
        self._size = os.fstat(self.fileno()).st_size
        self._reserve()

    def close(self) -> None:
        """Delete the file, and release its bytes."""
        super().close()
        with self._spool.lock:  # who writes to it may be another thread, and be late
            self._is_closed = True
            self._spool.add(-self._reserved, self._caller)
            self._reserved = 0

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reserve(self) -> None:
        """Count all that was written. Raises ValueError if the file is closed."""
        with self._spool.lock:
            if self._is_closed:
                raise ValueError("I/O operation on closed file")
            more = self._size - self._reserved
            self._spool.check(more, self._caller)
            self._spool.add(more, self._caller)
            self._reserved = self._size


@dataclass(frozen=True)
class Upload:
    """Audio that a client sent or a URL returned, under the name that it has there. `cancellation` ends reading it."""

    file: IO[bytes]
    name: str
    cancellation: Cancellation = field(default_factory=Cancellation, compare=False)

    def load(self, *, limits: Limits) -> Audio:
        """Decode the audio. Raises KitError like `runtime.audio.load`."""
        return audio.load(self.file, limits=limits, name=self.name, cancellation=self.cancellation)

    def close(self) -> None:
        self.file.close()


def memory_limit(requests: int) -> int:
    """How many bytes of each file stay in memory with so many requests."""
    return min(MAX_IN_MEMORY, TOTAL_IN_MEMORY // max(requests, 1))
