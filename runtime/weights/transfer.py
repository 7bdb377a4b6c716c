"""Bytes from a hub into files: read on where the last attempt broke off, several files at a time, patiently."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from threading import Event
from typing import TypeVar

from env.errors import KitError
from runtime.weights.hubs import Opener, RemoteFile
from runtime.weights.hubs.http import NAME_TIMEOUT, NO_WAY, RangeError, TransientError, UnresolvedError
from runtime.weights.lockfile import Digest, digest

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long to try: `attempts` in a row that bring not one byte, with pauses of `first` seconds, doubled up to
    `most`. A hub that asks for a pause gets it, up to `longest` seconds. A name that cannot be resolved
    gets `unresolved` seconds in all, unless something came before."""

    attempts: int = 7
    first: float = 1.0
    most: float = 60.0
    longest: float = 900.0
    unresolved: float = NAME_TIMEOUT

    def pause(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after so many failures in a row."""
        return asked if asked is not None else min(self.most, self.first * 2 ** (failures - 1))


class TransferStoppedError(Exception):
    """Another file failed, or the operator wants no more."""


class Download:
    """A file on its way into `part`, which may hold the beginning already.

    `on_bytes` hears of the bytes that came, and, as a negative number, of those that must come again.
    """

    def __init__(self, hub: Opener, file: RemoteFile, part: Path, on_bytes: Callable[[int], None]) -> None:
        self.hub, self.file, self.part, self.on_bytes = hub, file, part, on_bytes
        self.digest = Digest(file.size)

    @property
    def held(self) -> int:
        """Bytes in the part."""
        return self.part.stat().st_size if self.part.exists() else 0

    def attempt(self) -> Digest:
        """Fetch what is missing; returns the sums of all. Raises TransientError, KitError and OSError."""
        if self.held > self.file.size:
            self.cut(0)
        if self.held == self.file.size:
            self.part.touch()
            self._sum()
            return self.digest
        try:
            with self.hub.open(self.file, self.held) as body, self.part.open("ab") as out:
                self.cut(body.start)
                self._sum()
                for piece in body.pieces:
                    if self.digest.position + len(piece) > self.file.size:
                        reason = f"holds more than the {self.file.size} bytes that are listed"
                        raise KitError(f"{self.file.name} of {self.hub.source}", reason)
                    out.write(piece)
                    self.digest.update(piece)
                    self.on_bytes(len(piece))
        except RangeError:
            self.cut(0)
            raise
        if self.digest.position < self.file.size:
            raise TransientError(f"the connection broke off after {self.digest.position} of {self.file.size} bytes")
        return self.digest

    def cut(self, start: int) -> None:
        """Leave the part's first `start` bytes."""
        held = self.held
        if start < held:
            with self.part.open("r+b") as file:
                file.truncate(start)
            self.on_bytes(start - held)

    def _sum(self) -> None:
        """Sum what the part holds, unless that is known from the attempt before."""
        if self.digest.position != self.held:
            self.digest = digest(self.part, size=self.file.size, first=self.held)


def patiently(
    work: Callable[[], Result],
    *,
    subject: str,
    patience: Patience,
    stop: Event,
    say: Callable[[str], None],
    progress: Callable[[], int] = lambda: 0,
) -> Result:
    """What `work` returns, which is called again while it fails for reasons that may pass.

    `progress` tells how far it came: whoever comes further has all attempts again. `say` hears of each pause. Raises
    KitError after the last attempt, StoppedError once `stop` is set.
    """
    begun, first = time.monotonic(), progress()
    failures, best = 0, first
    while True:
        if stop.is_set():
            raise TransferStoppedError
        try:
            return work()
        except TransientError as error:
            reached = progress()
            failures, best = (1, reached) if reached > best else (failures + 1, best)
            pause = patience.pause(failures, error.wait)
            if pause > patience.longest:
                raise KitError(subject, f"{error.reason}, and asks to wait {pause:.0f} s", "try again then") from None
            late = time.monotonic() - begun + pause > patience.unresolved
            if isinstance(error, UnresolvedError) and best == first and late:
                raise KitError(subject, error.reason, NO_WAY) from None
            if failures >= patience.attempts:
                advice = "what was fetched is kept: try again, or another hub (ASR_HUB)"
                times = f", {failures} times in a row" if failures > 1 else ""
                raise KitError(subject, error.reason + times, advice) from None
            if not stop.is_set():
                say(f"{subject}: {error.reason}; again in {pause:.0f} s")
            stop.wait(pause)


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, stop: Event
) -> Iterator[Result]:
    """The results of `work` on all items, as they come, from so many threads.

    The threads end with the process, so that neither a failure nor Ctrl-C waits for a hub that says nothing. `stop` is
    set as soon as one fails.
    """
    with ThreadPool(workers) as pool:
        try:
            yield from pool.imap_unordered(work, items)
        except BaseException:
            stop.set()
            raise
