"""Stretches of a file, behind a header of one's own, as a file: what FFmpeg is shown instead of the file itself."""

import io
from typing import IO, TYPE_CHECKING

from runtime.endings import read_at

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Stretches = tuple[tuple[int, int], ...]  # start and length, in bytes


def joined_stretches(file: IO[bytes], stretches: Stretches, *, header: bytes = b"") -> IO[bytes]:
    """A seekable file of `header` and the stretches, none of which is copied."""
    return io.BufferedReader(_JoinedStretches(file, stretches, header))


class _JoinedStretches(io.RawIOBase):
    def __init__(self, file: IO[bytes], stretches: Stretches, header: bytes) -> None:
        self._parts: list[tuple[IO[bytes], int, int]] = [(io.BytesIO(header), 0, len(header))]
        self._parts += [(file, start, length) for start, length in stretches]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: sum(length for _, _, length in self._parts)}
        self._at = max(0, base[whence] + offset)
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        target = memoryview(buffer)
        before = 0
        for file, start, length in self._parts:
            if self._at < before + length:
                skip = self._at - before
                data = read_at(file, start + skip, min(len(target), length - skip))
                target[: len(data)] = data
                self._at += len(data)
                return len(data)
            before += length
        return 0
