"""How far a long task is, on standard error: a bar or a spinner on a terminal, a plain line now and then elsewhere."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.spinner import Spinner
from rich.text import Text

BYTES = "bytes"  # the unit that is shown as kB, MB …, with a speed
BAR_LINE_INTERVAL = 5.0  # seconds between plain lines of a bar
STAGE_LINE_INTERVAL = 10.0  # seconds between plain lines about the same kind of stage
STAGE_DELAY = 1.0  # seconds before a wait, or a step that may be short, is worth a plain line
SPINNER_RATE = 12.5  # frames per second
HOW_MUCH = re.compile(r",? \d+ ?%|\b\d[\d.]* of \d[\d.]*")


class ProgressBar:
    """Work done and work to do, in whatever unit; both may grow on the way. Safe to use from any thread."""

    def __init__(self, show: Callable[[float, float], None], done: float, total: float) -> None:
        self._show, self._done, self._total = show, done, total
        self._lock = threading.Lock()

    def expect(self, amount: float) -> None:
        """Add `amount` to the work to do."""
        with self._lock:
            self._total += amount
            self._show(self._done, self._total)

    def advance(self, amount: float) -> None:
        """Add `amount` to the work done."""
        with self._lock:
            self._done += amount
            self._show(self._done, self._total)


@contextmanager
def progress_bar(title: str, total: float = 0.0, *, unit: str, done: float = 0.0) -> Iterator[ProgressBar]:
    """Show how `title` comes towards `total`, of which `done` needs no more work."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressBar(_bar_lines(console, title, unit, done), done, total)
        return
    amount = TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit)
    amounts = (DownloadColumn(), TransferSpeedColumn()) if unit == BYTES else (amount, TimeElapsedColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task(title, total=total)
        display.update(task, completed=done)
        yield ProgressBar(lambda done, of: display.update(task, completed=done, total=of), done, total)


def _bar_lines(console: Console, title: str, unit: str, done: float) -> Callable[[float, float], None]:
    begun = shown = time.monotonic()
    before = done

    def show(done: float, total: float) -> None:
        nonlocal shown, before
        now = time.monotonic()
        if now <= shown + BAR_LINE_INTERVAL:
            return
        if unit == BYTES:  # what a network or a disk does now says more than its mean
            speed = max(0.0, (done - before) / (now - shown))
            amounts = f"{decimal(int(done))} of {decimal(int(total))}, {decimal(int(speed))}/s"
        else:
            speed = done / (now - begun)
            amounts = f"{done:.0f} of {total:.0f} {unit}"
        left = f", about {(total - done) / speed:.0f} s left" if speed else ""
        shown, before = now, done
        console.print(f"{title}: {amounts}{left}", highlight=False)

    return show


class StatusLine:
    """What is going on, for nobody knows how long: one line that changes on a terminal; elsewhere a line for each kind
    of stage, and one every STAGE_LINE_INTERVAL about a stage that goes on. Safe to use from any thread."""

    def __init__(self, title: str, *, announce: bool, animated: bool) -> None:
        self._title, self._animated, self._finished = title, animated, False
        self._console, self._lock = Console(stderr=True), threading.RLock()
        self._live: Live | None = None
        self._pending: threading.Timer | None = None
        self._kind = self._last = ""  # the kind of stage that it is in, and the text of the last line
        self._shown: dict[str, float] = {}  # when a line about a kind of stage was printed last
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, transient=True, auto_refresh=animated, refresh_per_second=SPINNER_RATE
            )
        if announce and self._live:
            self._refresh(self._live, title)
        elif announce:
            self._later(lambda: self._print(f"{title} …"))

    def show(self, stage: str) -> None:
        """Show a stage at once; an empty one clears the line on a terminal."""
        with self._lock:
            if self._finished:
                return
            if self._live and stage:
                self._refresh(self._live, self._worded(stage))
            elif self._live:
                self._live.stop()
            elif stage:
                self._cancel()
                self._kind, now = stage_kind(stage), time.monotonic()
                waited = now - self._shown.get(self._kind, -STAGE_LINE_INTERVAL)
                if stage != self._last and waited >= STAGE_LINE_INTERVAL:
                    self._last, self._shown[self._kind] = stage, now
                    self._print(self._worded(stage))

    def step(self, stage: str) -> None:
        """Show one of many steps, off a terminal only if it lasts."""
        with self._lock:
            if self._live:
                self.show(stage)
            elif not self._finished and stage_kind(stage) != self._kind:
                self._kind = stage_kind(stage)
                self._cancel()
                self._later(lambda: self.show(stage))

    def finish(self) -> None:
        """Show nothing any more. May be called again."""
        with self._lock:
            self._finished = True
            self._cancel()
            if self._live:
                self._live.stop()

    def _worded(self, stage: str) -> str:
        return f"{self._title}: {stage}" if self._title else stage

    def _refresh(self, live: Live, line: str) -> None:
        live.start()
        live.update(Spinner("dots", Text(line), style="status.spinner") if self._animated else Text(line), refresh=True)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _later(self, print_line: Callable[[], None]) -> None:
        self._pending = threading.Timer(STAGE_DELAY, print_line)
        self._pending.daemon = True
        self._pending.start()

    def _cancel(self) -> None:
        if self._pending:
            self._pending.cancel()


@contextmanager
def status_line(title: str = "", *, announce: bool = True, animated: bool = True) -> Iterator[StatusLine]:
    """Show what goes on until the block ends or `finish` is called. `announce`: show the title before there is a
    stage. `animated`: with a spinner, whose thread takes some of the time that this process has."""
    line = StatusLine(title, announce=announce and bool(title), animated=animated)
    try:
        yield line
    finally:
        line.finish()


def stage_kind(stage: str) -> str:
    """A stage without how much of it is done: `loading weights, 50 %` → loading weights."""
    return HOW_MUCH.sub("", stage)
