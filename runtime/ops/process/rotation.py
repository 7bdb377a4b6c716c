"""The server's log, put aside when it is large."""

import os
import shutil
from pathlib import Path


def aside(log: Path, number: int) -> Path:
    """The log that was put aside `number` times ago: server-8000.1.log is the newest."""
    return log.with_suffix(f".{number}{log.suffix}")


def rotate(log: Path, *, most_bytes: int, files: int) -> bool:
    """Put a log that has reached `most_bytes` aside, and keep `files` in all; returns whether it had.

    It is copied and emptied, as the server and what that starts have it open, and go on at its end. What one of them
    writes between the last read and the emptying, microseconds later, is lost. Raises OSError: then nothing is.
    """
    if log.stat().st_size < most_bytes:
        return False
    if files > 1:
        _copy(log, files)
    os.truncate(log, 0)
    return True


def _copy(log: Path, files: int) -> None:
    """To the newest of those that were put aside; the oldest goes."""
    part = log.with_suffix(".part")
    part.unlink(missing_ok=True)  # of an interruption
    with log.open("rb") as written, os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        shutil.copyfileobj(written, copy)
        for number in range(files - 1, 1, -1):
            if aside(log, number - 1).exists():
                aside(log, number - 1).replace(aside(log, number))
        part.replace(aside(log, 1))
        shutil.copyfileobj(written, copy)  # what came meanwhile
