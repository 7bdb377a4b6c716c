"""Bytes from outside are parsed in helper processes, with limits on memory, CPU seconds, time and output.

A template process, which has imported the parsers, forks them in a millisecond. A helper has none of this process's
descriptors and secrets, and no room for another descriptor, so that a parser can open no file and no connection. One
that goes beyond its limits, or crashes, is ended, and only the call that it worked on fails.
"""

import contextlib
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from runtime.sandbox.bounds import CancelledError, ExceededError, HelperLimits, RefusedError, UnavailableError
from runtime.sandbox.pool import Cancellation, pool

__all__ = [
    "Bounds",
    "Cancellation",
    "CancelledError",
    "ExceededError",
    "RefusedError",
    "UnavailableError",
    "call",
    "memory_file",
    "seal",
    "warm_up",
]

COPIED = 1 << 20  # bytes; files that are no larger are copied, as they may be in memory only


def call(
    task: str,
    file: IO[bytes],
    into: int,
    arguments: Mapping[str, Any],
    *,
    bounds: HelperLimits,
    cancellation: Cancellation | None = None,
) -> Any:
    """What a task, a module's name and a function's, gives for a seekable file; what it writes goes to the descriptor
    `into`, which must be of a file. `runtime.sandbox.template` says what a task is.

    Call it from a thread: it waits for its turn. Raises ExceededError, RefusedError for what the task refuses,
    CancelledError, UnavailableError where no helper can be had, and OSError where the file cannot be read.
    """
    request = {"task": task, "arguments": arguments, **vars(bounds)}
    with _readable(file) as descriptor:
        return pool().call(request, (descriptor, into), cancellation or Cancellation())


def warm_up() -> None:
    """Start the template, so that it is ready when the first call comes, without waiting for it."""
    pool().warm_up()


def memory_file(name: str) -> int:
    """The descriptor of an empty file in memory, without a name but in /proc. Raises UnavailableError."""
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        descriptor, path = tempfile.mkstemp(dir="/dev/shm")  # conda's Pythons are built for systems without memfd
        Path(path).unlink()
    except OSError as error:
        raise UnavailableError(*error.args) from None
    return descriptor


def seal(descriptor: int) -> None:
    """Keep the size of a memory file as it is, whoever else has it open: to map a file that shrinks is to crash."""
    with contextlib.suppress(OSError):  # of a file in /dev/shm
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)


@contextlib.contextmanager
def _readable(file: IO[bytes]) -> Iterator[int]:
    """A descriptor from which a file can be read, with a position of its own."""
    opened = _opened_again(file) if file.seek(0, io.SEEK_END) > COPIED else None
    descriptor = memory_file("input") if opened is None else opened
    try:
        if opened is None:
            file.seek(0)
            with os.fdopen(descriptor, "wb", closefd=False) as copy:
                shutil.copyfileobj(file, copy, COPIED)
        yield descriptor
    finally:
        os.close(descriptor)


def _opened_again(file: IO[bytes]) -> int | None:
    """None for a file that is in memory only."""
    try:
        file.flush()
        descriptor = file.fileno()
    except io.UnsupportedOperation:
        return None
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # opened by somebody who may read it, such as a shell before sudo
        return os.dup(descriptor)
