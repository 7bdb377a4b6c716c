"""How far a long task is: a bar on a terminal, a plain line now and then elsewhere. On standard error."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LINE_EVERY = 5.0  # seconds between plain lines
PATIENCE = 1.0  # seconds before a wait is worth a line
SHARE = re.compile(r",? \d+ ?%")

Advance = Callable[[int], None]

PART_LINE_EVERY = 10.0  # seconds between lines about the same part, where output is no terminal


class Bar:
    """Work done and work to do, in whatever unit; both may grow as one goes."""

    def __init__(self, show: Callable[[float, float], None], total: float) -> None:
        self._show, self._done, self._total = show, 0.0, total

    def expect(self, amount: float) -> None:
        """There is `amount` more to do."""
        self._total += amount
        self._show(self._done, self._total)

    def advance(self, amount: float) -> None:
        """`amount` is done."""
        self._done += amount
        self._show(self._done, self._total)


@contextmanager
def progress(title: str, total: float = 0.0, *, unit: str) -> Iterator[Bar]:
    """Show progress of `title` towards `total`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Bar(_plain_lines(console, title, unit), total)
        return
    amount = TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit)
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task(title, total=total)
        yield Bar(lambda done, of: display.update(task, completed=done, total=of), total)


class Wait:
    """A wait that is shown until this is called. `show` shows a stage now, `step` only if it lasts."""

    def __init__(
        self, show: Callable[[str], None], end: Callable[[], None], step: Callable[[str], None] | None = None
    ) -> None:
        self._show, self._end, self._step, self._over = show, end, step or show, False

    def __call__(self) -> None:
        """It is over."""
        self._over = True
        self._end()

    def tell(self, stage: str) -> None:
        """It is so far; from any thread."""
        if not self._over:
            self._show(stage)

    def step(self, stage: str) -> None:
        """It is at one of many steps, which is worth a line only if it takes long."""
        if not self._over:
            self._step(stage)


@contextmanager
def waiting(title: str) -> Iterator[Wait]:
    """Show that something of unknown length goes on, until what is yielded is called or the block ends: a spinner on a
    terminal, with the stage that it is told; else one line if it takes longer than a second, and one for each kind of
    stage."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(title) as status:
            yield Wait(lambda stage: status.update(escape(f"{title}: {stage}")), status.stop)
        return
    lines = [threading.Timer(PATIENCE, lambda: console.print(f"{title} …", highlight=False))]
    lines[0].start()
    told: set[str] = set()
    current = ""

    def end() -> None:
        lines[-1].cancel()

    def show(stage: str) -> None:
        end()
        if (kind := without_share(stage)) not in told:
            told.add(kind)
            console.print(f"{title}: {stage}", highlight=False, markup=False, soft_wrap=True)

    def step(stage: str) -> None:
        nonlocal current
        if (kind := without_share(stage)) != current:
            current = kind
            end()
            lines.append(threading.Timer(PATIENCE, show, [stage]))
            lines[-1].start()

    try:
        yield Wait(show, end, step)
    finally:
        end()


def without_share(stage: str) -> str:
    """A stage without how much of it is done: `loading weights, 50 %` → loading weights."""
    return SHARE.sub("", stage)


def _plain_lines(console: Console, title: str, unit: str) -> Callable[[float, float], None]:
    begun = told = time.monotonic()

    def show(done: float, total: float) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= LINE_EVERY:
            told = now
            left = f", about {(now - begun) * (total / done - 1):.0f} s left" if done else ""
            console.print(f"{title}: {done:.0f} of {total:.0f} {unit}{left}", highlight=False)

    return show


@contextmanager
def stages(title: str) -> Iterator[Callable[[str], None]]:
    """Show the stage that something is in, each time the function that is yielded hears of a new one: in a spinner on
    a terminal, which is not there before the first, else as a line."""
    console = Console(stderr=True)
    status = console.status(title)
    last = ""

    def show(stage: str) -> None:
        nonlocal last
        if stage != last:
            last = stage
            if console.is_terminal:
                status.update(f"{title}: {stage}")
                status.start()
            else:
                console.print(f"{title}: {stage}", highlight=False, markup=False, soft_wrap=True)

    try:
        yield show
    finally:
        status.stop()


@contextmanager
def meter(title: str, total: int, *, done: int = 0) -> Iterator[Advance]:
    """Show how `title` comes towards `total` bytes, of which `done` need no more work. The function that is yielded
    takes the bytes that were worked on; from any thread."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _byte_lines(console, title, total, done)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as display:
        task = display.add_task(title, total=total, completed=done)
        yield lambda count: display.advance(task, count)


def _byte_lines(console: Console, title: str, total: int, done: int) -> Advance:
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
        if words and (begun != part or time.monotonic() - told >= PART_LINE_EVERY):
            part, told = begun, time.monotonic()
            console.print(words, highlight=False, markup=False, soft_wrap=True)

    return show
