"""The server's log: its end, and what is added."""

import re
from collections.abc import Iterator
from pathlib import Path

from env.errors import KitError
from runtime.host.processes import Process, ended

MOST_BYTES = 4 << 20  # of a log's end that is looked at
EVERY = 0.25  # seconds between two looks at a log that is followed
ERROR = re.compile(r"\b(\w*error|critical|fatal|crashed|failed|traceback)\b", re.IGNORECASE)


def tail(log: Path, lines: int, *, start: int = 0) -> list[str]:
    """The last lines of a log, of those from byte `start` on. Raises KitError where it cannot be read."""
    return _last(_end(log, start)[0].split(b"\n"), lines)


def last_errors(log: Path, lines: int, *, start: int = 0) -> list[str]:
    """The last lines that look like errors; none where the log cannot be read."""
    try:
        return [line for line in tail(log, MOST_BYTES, start=start) if ERROR.search(line)][-lines:]
    except KitError:
        return []


def follow(log: Path, process: Process | None, lines: int) -> Iterator[str]:
    """The last lines, then each that is added until `process` ends. Raises KitError where the log cannot be read."""
    if process is None:
        yield from tail(log, lines)
        return
    data, position = _end(log, 0)
    *whole, rest = data.split(b"\n")
    yield from _last(whole, lines)
    last = b"".join(whole[-1:])
    with process.handle() as handle, log.open("rb") as file:
        over = False
        while not over:
            over = handle is None or ended(handle, EVERY)
            put_aside = log.stat().st_size < position  # and emptied, as logrotate's copytruncate does, or cut
            if put_aside:
                position, rest = 0, b""
            file.seek(position)
            added = file.read()
            position += len(added)
            if put_aside and last:
                _, found, behind = (b"\n" + added.lstrip(b" ")).partition(b"\n" + last + b"\n")
                added = behind if found else added  # a log that is cut still has lines that were shown
            *whole, rest = (rest + added).split(b"\n")
            last = b"".join(whole[-1:]) or last
            yield from (_text(line) for line in whole)
        if rest:
            yield _text(rest)


def _end(log: Path, start: int) -> tuple[bytes, int]:
    """What a log ends with, from byte `start` on where it is not too much, and its size."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            begin = max(start if start <= size else 0, size - MOST_BYTES)
            file.seek(begin)
            data = file.read(size - begin)
            return data if begin else data.lstrip(b" "), size  # a log that is cut begins with blanks
    except FileNotFoundError:
        raise KitError(str(log), "is not there: no server was started on this port", "invoke start") from None
    except OSError as error:
        raise KitError(str(log), f"cannot be read: {error.strerror}") from None


def _last(lines: list[bytes], most: int) -> list[str]:
    """The last of the lines, of which the one after the last newline is none."""
    found = lines if lines[-1:] != [b""] else lines[:-1]
    return [_text(line) for line in found[-most:]] if most > 0 else []


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r")
