"""Room on disk for what clients send and URLs answer: all files together are bounded, so that neither a host's disk nor
a pod's volume is filled."""

import errno
import threading
from tempfile import SpooledTemporaryFile

from env.field import variable

SETTING = variable("spool_max_mib")


class SpoolFullError(OSError):
    """All files together would take more than they may."""

    def __init__(self, most: int) -> None:
        words = f"all uploads together would take more than {most / 2**20:g} MiB on disk, the limit ({SETTING})"
        super().__init__(errno.EDQUOT, words)


class Spool:
    """Temporary files without a name, which together take at most `most` bytes on disk."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """Bytes on disk."""
        return self._taken

    def open(self, in_memory: int) -> "SpooledFile":
        """An empty file, of which so many bytes stay in memory, where they do not count."""
        return SpooledFile(self, in_memory)

    def check(self, count: int) -> None:
        """Raises SpoolFullError where there is no room for so many bytes now."""
        if self._taken + count > self.most:
            raise SpoolFullError(self.most)

    def take(self, count: int) -> None:
        """Raises SpoolFullError where there is no room for so many bytes more."""
        with self._lock:
            self.check(count)
            self._taken += count

    def give_back(self, count: int) -> None:
        """So many bytes less."""
        with self._lock:
            self._taken -= count


class SpooledFile(SpooledTemporaryFile[bytes]):
    """A file that is written once, from its start to its end, and read then. Writing raises SpoolFullError."""

    def __init__(self, spool: Spool, in_memory: int) -> None:
        super().__init__(max_size=in_memory)
        self._spool = spool
        self._size = self._taken = 0
        self._on_disk = False

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
        """The descriptor of an empty file, for another process to write at most `most` bytes to."""
        self._size = most
        self.rollover()
        return self.fileno()

    def close(self) -> None:
        """Forget it, which makes room."""
        super().close()
        self._spool.give_back(self._taken)
        self._taken = 0

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> None:
        """Room for all that was written."""
        self._spool.take(self._size - self._taken)
        self._taken = self._size
