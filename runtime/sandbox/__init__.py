"""Bytes from outside are parsed in helper processes, with limits on memory, CPU seconds, time and output.

A template process, which has imported the parsers, forks them in a millisecond. A helper has none of this process's
descriptors and secrets; while it works it can open nothing: no file, no network. One that goes beyond its limits, or
crashes, is ended, and only the call that it worked on fails.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import IO, Any

from runtime.sandbox.bounds import Bounds, CancelledError, ExceededError, RefusedError
from runtime.sandbox.pool import Cancellation, pool

__all__ = ["Bounds", "Cancellation", "CancelledError", "ExceededError", "RefusedError", "call", "warm_up"]

COPIED = 1 << 20  # bytes; files that are no larger are copied, as they may be in memory only


def call(
    task: str,
    file: IO[bytes],
    into: int,
    arguments: Mapping[str, Any],
    *,
    bounds: Bounds,
    cancellation: Cancellation | None = None,
) -> Any:
    """What a task, a module's name and a function's, gives for a seekable file; what it writes goes to the descriptor
    `into`, which must be of a file. `runtime.sandbox.template` says what a task is.

    Call it from a thread: it waits for its turn. Raises ExceededError, RefusedError for what the task refuses,
    CancelledError, and OSError where no helper can be had or the file cannot be read.
    """
    request = {"task": task, "arguments": arguments, **vars(bounds)}
    with _readable(file) as descriptor:
        return pool().call(request, (descriptor, into), cancellation or Cancellation())


def warm_up() -> None:
    """Start the template, so that it is ready when the first call comes, without waiting for it."""
    pool().warm_up()


@contextlib.contextmanager
def _readable(file: IO[bytes]) -> Iterator[int]:
    """A descriptor from which a file can be read, with a position of its own."""
    descriptor = _opened_again(file) if file.seek(0, io.SEEK_END) > COPIED else None
    if descriptor is None:
        descriptor = os.memfd_create("input")
        file.seek(0)
        with os.fdopen(os.dup(descriptor), "wb") as copy:
            shutil.copyfileobj(file, copy, COPIED)
    try:
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
