"""How files end: cut short, or whole with bytes behind the end that are none of theirs.

Editors append tags, phones and dash cameras atoms of their own, disks and tapes zeros; players ignore all of it.
"""

import io
import re
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

WINDOW = 1 << 16  # bytes read at once
# Packets, tags, boxes, elements that are walked: 4 hours of sound in pieces of 20 ms (720,000) beside 60 pictures a
# second (864,000) have 1.6 million. Long films may have more, but not only tiny ones: a DVD has 1 to 4 in 2,048 bytes.
MOST_PACKETS = 2_000_000
PACKET_BYTES = 512
FOREIGN = re.compile(
    rb"TAG|ID3|APETAGEX|LYRICSBEGIN|3DI|"  # tags of mp3, which some programs append to any file
    rb"OggS|fLaC|RIFF|RIFX|FORM|caff|\.snd|#!AMR|FLV\x01|\x1a\x45\xdf\xa3|\x00...[0-9A-Za-z]{4}|SEF[HT]|"  # atoms
    rb"PK[\x03-\x06]|\x1f\x8b\x08|\x89PNG|\xff\xd8\xff|GIF8|%PDF|\x7fELF",
    re.DOTALL,
)
TEXT = re.compile(rb"[\t\n\r -~]*\0*")

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Stretches = tuple[tuple[int, int], ...]  # start and length, in bytes


class DamagedError(Exception):
    """A file of which something is missing or damaged: says what, in words that follow its name."""


class OverlongError(Exception):
    """A file that lasts longer than it may: at least `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"lasts {seconds:.1f} s or more")
        self.seconds = seconds


def packets_of(what: str, size: int) -> Iterator[int]:
    """Counts what a file of `size` bytes is made of; `next` raises DamagedError where it is more than any recorder
    writes, so that nobody waits for minutes."""
    most = max(MOST_PACKETS, size // PACKET_BYTES)
    yield from range(most)
    raise DamagedError(f"is damaged: it has more than {most} {what}")


class Blocks:
    """A file read in large blocks, for walks in small steps."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._block, self._start = file, b"", 0

    def at(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start` on, at most WINDOW."""
        skip = start - self._start
        if not 0 <= skip <= len(self._block) - length:
            self._block, self._start, skip = read_at(self._file, start, WINDOW), start, 0
        return self._block[skip : skip + length]


def cut(what: str, start: int, length: int, size: int) -> DamagedError:
    """Says that of `length` bytes at `start` not all are in a file of `size` bytes."""
    return DamagedError(
        f"is cut short: {what} at byte {start} should hold {length} bytes, {max(size - start, 0)} are there"
    )


def read_at(file: IO[bytes], start: int, length: int) -> bytes:
    """Up to `length` bytes from `start` on."""
    if start > sys.maxsize:
        return b""
    file.seek(start)
    return file.read(length)


def find(file: IO[bytes], pattern: bytes, start: int, size: int) -> int | None:
    """Where the bytes `pattern` stand first from `start` on."""
    while start < size:
        window = read_at(file, start, WINDOW + len(pattern) - 1)
        found = window.find(pattern)
        if found >= 0:
            return start + found
        start += WINDOW
    return None


def zeros_end(file: IO[bytes], start: int, size: int) -> int:
    """Where the zeros end that stand from `start` on."""
    while start < size:
        window = read_at(file, start, WINDOW)
        other = len(window) - len(window.lstrip(b"\0"))
        start += other
        if other < len(window) or not window:
            break
    return start


def is_zero(file: IO[bytes], start: int, size: int) -> bool:
    """Whether nothing but zeros stands from `start` to the end of the file."""
    return zeros_end(file, start, size) >= size


def is_foreign(file: IO[bytes], start: int, size: int) -> bool:
    """Whether what stands from `start` to the end of the file can be told by its look to be none of its own: a tag,
    another file, an atom, text, or zeros.

    Zeros may also stand for what a download that stopped did not bring; then the last that was due ends with zeros.
    """
    if start >= size:
        return False
    head = read_at(file, start, 64)
    if not head.strip(b"\0"):
        return bool(read_at(file, max(0, start - 8), 8).strip(b"\0")) and is_zero(file, start, size)
    return bool(FOREIGN.match(head) or TEXT.fullmatch(head))


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
