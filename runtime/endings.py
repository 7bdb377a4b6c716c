"""How files end: cut short, or whole with bytes behind the end that are none of theirs.

Editors append tags, phones and dash cameras atoms of their own, disks and tapes zeros; players ignore all of it.
"""

import re
import sys
from typing import IO

WINDOW = 1 << 16  # bytes read at once
FOREIGN = re.compile(
    rb"TAG|ID3|APETAGEX|LYRICSBEGIN|3DI|"  # tags of mp3, which some programs append to any file
    rb"OggS|fLaC|RIFF|RIFX|FORM|caff|\.snd|#!AMR|FLV\x01|\x1a\x45\xdf\xa3|\x00...[0-9A-Za-z]{4}|SEF[HT]|"  # atoms
    rb"PK[\x03-\x06]|\x1f\x8b\x08|\x89PNG|\xff\xd8\xff|GIF8|%PDF|\x7fELF",
    re.DOTALL,
)
TEXT = re.compile(rb"[\t\n\r -~]*\0*")


class DamagedError(Exception):
    """A file of which something is missing or damaged: says what, in words that follow its name."""


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


def is_zero(file: IO[bytes], start: int, size: int) -> bool:
    """Whether nothing but zeros stands from `start` to the end of the file."""
    while start < size:
        window = read_at(file, start, WINDOW)
        if window.strip(b"\0") or not window:
            return False
        start += len(window)
    return True


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
