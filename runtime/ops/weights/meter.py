"""How many bytes of how many, how fast, and for how long still: a bar on a terminal, a plain line now and then
elsewhere. On standard error."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from runtime.progress import LINE_EVERY

Advance = Callable[[int], None]


@contextmanager
def meter(title: str, total: int, *, done: int = 0) -> Iterator[Advance]:
    """Show how `title` comes towards `total` bytes, of which `done` need no more work. The function that is yielded
    takes the bytes that were worked on; from any thread."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(console, title, total, done)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as display:
        task = display.add_task(title, total=total, completed=done)
        yield lambda count: display.advance(task, count)


def _plain_lines(console: Console, title: str, total: int, done: int) -> Advance:
    guard = threading.Lock()
    told, before = time.monotonic(), done

    def advance(count: int) -> None:
        nonlocal done, told, before
        with guard:
            done += count
            passed = time.monotonic() - told
            if passed < LINE_EVERY:
                return
            speed = max(0.0, (done - before) / passed)
            left = f", {(total - done) / speed:.0f} s left" if speed else ""
            told, before = told + passed, done
        line = f"{title}: {decimal(done)} of {decimal(total)}, {decimal(int(speed))}/s{left}"
        console.print(line, highlight=False)

    return advance
