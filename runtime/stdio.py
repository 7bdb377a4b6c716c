"""Standard output and standard error as a shell may set them up: in an encoding without the letters that a transcript
has, on a full disk, closed. None of that ends a task with a traceback, or a batch before its last file."""

import atexit
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from env.errors import KitError
from runtime.redaction import escaped


class OutputError(KitError):
    """Standard output takes no more."""


class _Descriptor(io.FileIO):
    """A stream's file descriptor. What cannot be written is dropped, and the failure kept, so that a task goes on with
    what it does beside printing; only a reader that has hung up is told at once."""

    failure: OSError | None = None

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        rest = memoryview(data)
        try:
            while rest:  # a disk that has almost no room takes a part
                rest = rest[super().write(rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            self.failure = error
        return memoryview(data).nbytes


_output: _Descriptor | None = None


def prepare() -> None:
    """Set up this process's streams: `?` stands for what standard output cannot encode, and nothing fails where one of
    them takes no more: `check` tells it of standard output. Streams that a caller has put in their place are left."""
    global _output
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        _output = _Descriptor(sys.__stdout__.fileno())
        sys.stdout = _text(sys.__stdout__, _output, "replace")
        atexit.register(_end)
    if sys.__stderr__ is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _text(sys.__stderr__, _Descriptor(sys.__stderr__.fileno()), "backslashreplace")


def write(text: str) -> None:
    """Print a text at once, see `for_reading`. Raises OutputError where standard output is closed or takes no more."""
    if sys.stdout is None:
        raise OutputError("standard output", "is closed")
    print(for_reading(text, sys.stdout), end="")
    check()


def for_reading(text: str, stream: TextIO | None) -> str:
    """What others wrote, as a stream may have it: a terminal with its control characters escaped, a file or a pipe as
    it is."""
    try:
        terminal = stream is not None and os.isatty(stream.fileno())  # what stands in for it beside a bar denies it
    except (OSError, ValueError):
        terminal = False
    return escaped(text) if terminal else text


def check() -> None:
    """Raises OutputError where standard output did not take all that was printed since the last check."""
    if sys.stdout is None:
        return
    sys.stdout.flush()
    if _output and (failure := _output.failure):
        _output.failure = None
        raise OutputError("standard output", f"cannot be written: {failure.strerror}", "make room, or write elsewhere")


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """`check` at the end of the block; where it fails for a reason of its own, both are told."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(BrokenPipeError):
            try:
                check()
            except OutputError as error:
                print(error, file=sys.stderr)
        raise
    check()


def unshown(text: str) -> int:
    """How many characters of a text standard output shows as `?`."""
    encoding = sys.stdout.encoding or "utf-8"
    return len(text) - len(text.encode(encoding, "ignore").decode(encoding, "ignore"))


def silence() -> None:
    """Drop what is still to be written to standard output, as nobody reads it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _text(stream: Any, descriptor: _Descriptor, errors: str) -> io.TextIOWrapper:
    """A text stream like this one, on another descriptor."""
    return io.TextIOWrapper(
        descriptor if stream.write_through else io.BufferedWriter(descriptor),  # unbuffered, as PYTHONUNBUFFERED asks
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _end() -> None:
    """For what was printed outside of tasks, such as Invoke's help, when it is too late to raise."""
    try:
        check()
    except BrokenPipeError:
        silence()
    except OutputError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(error.exit_code)
