"""How far a benchmark is, told without a thread of its own, which would take time from what is measured."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TextColumn

LINE_EVERY = 10.0  # seconds between lines about the same part, where output is no terminal


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Show on standard error what the function that is yielded is told: a line that changes on a terminal, and makes
    room for others when it is told nothing; elsewhere lines now and then, and one whenever a part begins, which is what
    stands before a colon."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    with Progress(
        TextColumn("{task.description}", markup=False), console=console, transient=True, auto_refresh=False
    ) as display:
        line = display.add_task("")
        yield lambda words: display.update(line, description=words, refresh=True)


def _lines(console: Console) -> Callable[[str], None]:
    part, told = "", 0.0

    def show(words: str) -> None:
        nonlocal part, told
        begun = words.partition(":")[0]
        if words and (begun != part or time.monotonic() - told >= LINE_EVERY):
            part, told = begun, time.monotonic()
            console.print(words, highlight=False, markup=False, soft_wrap=True)

    return show
