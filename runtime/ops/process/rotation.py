"""The server's log, put aside when it is large."""

import ctypes
import os
import shutil
from pathlib import Path
from typing import IO

COLLAPSE_RANGE = 8  # FALLOC_FL_COLLAPSE_RANGE, see fallocate(2)
LIBC = ctypes.CDLL(None)


def aside(log: Path, number: int) -> Path:
    """The log that was put aside `number` times ago: server-8000.1.log is the newest."""
    return log.with_suffix(f".{number}{log.suffix}")


def rotate(log: Path, *, most_bytes: int, files: int) -> bool:
    """Put a log that has reached `most_bytes` aside, and keep `files` in all; returns whether it had.

    It is copied and cut, as the server and what that starts have it open, and go on at its end. Where the file system
    cannot cut a file's beginning off (ext4 and XFS can), it is emptied, and what is written between the last read and
    that, microseconds later, is lost. Raises OSError: then nothing is.
    """
    if log.stat().st_size < most_bytes:
        return False
    if files > 1:
        _move(log, files)
    else:
        os.truncate(log, 0)
    return True


def remove_older(log: Path, *, files: int) -> None:
    """Remove what was put aside while more files were kept. Raises OSError."""
    for path in log.parent.glob(f"{log.stem}.*{log.suffix}"):
        number = path.name[len(log.stem) + 1 : -len(log.suffix)]
        if number.isdecimal() and int(number) >= files:
            path.unlink()


def _move(log: Path, files: int) -> None:
    """To the newest of those that were put aside; the oldest goes."""
    part = log.with_suffix(".part")
    part.unlink(missing_ok=True)  # of an interruption
    with (
        log.open("r+b") as written,
        os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy,
    ):
        shutil.copyfileobj(written, copy)
        for number in range(files - 1, 1, -1):
            if aside(log, number - 1).exists():
                aside(log, number - 1).replace(aside(log, number))
        part.replace(aside(log, 1))
        if not _cut(written, copy):
            shutil.copyfileobj(written, copy)  # what came meanwhile
            os.truncate(log, 0)


def _cut(written: IO[bytes], copy: IO[bytes]) -> bool:
    """Take from the log what was copied, but for its last lines, which the copy gives up; returns whether that could be
    done. Only whole blocks can be taken: blanks stand for what is left of a line that began in one. They lead the next
    line, which they leave an object where lines are JSON."""
    block = os.fstatvfs(written.fileno()).f_bsize
    copied = copy.tell()
    start = (copied - 1) // block * block
    written.seek(start)
    end = start + len(line := written.readline())
    if (
        start
        and end < copied
        and not LIBC.fallocate(written.fileno(), COLLAPSE_RANGE, ctypes.c_int64(0), ctypes.c_int64(start))
    ):
        os.pwrite(written.fileno(), b" " * len(line), 0)
        copy.truncate(end)
        return True
    written.seek(copied)
    return False
