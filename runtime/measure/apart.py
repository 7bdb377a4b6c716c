"""Work in a process of its own, so that neither memory nor the interpreter's lock is shared with what is measured."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from env.errors import KitError

FAREWELL = 10.0  # seconds for the process to end in once the pipe is closed

Pipe: TypeAlias = "Connection[Any, Any]"


@contextmanager
def apart(work: Callable[..., None], *given: object, name: str) -> Iterator[Pipe]:
    """A pipe to `work(pipe, *given)`, which runs in a new process that ends with the block; Ctrl-C is this one's alone.

    Raises KitError, which calls it `name`, where it ends before the block. It is killed where the block fails, or where
    it does not end by itself: one that is killed cannot give back what it shares with this one, such as semaphores.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_begin, args=(work, there, *given), daemon=True)
    process.start()
    there.close()
    try:
        yield here
        here.close()
        process.join(FAREWELL)
    except (EOFError, ConnectionError):
        raise KitError(name, "ended before it was asked to", "its last words are above") from None
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


def _begin(work: Callable[..., None], pipe: Pipe, *given: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):  # whoever is at the other end was killed
        work(pipe, *given)
