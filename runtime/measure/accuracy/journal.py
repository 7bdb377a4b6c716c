"""What became of each utterance, on disk as soon as it is known, so that a run that was cut short goes on.

A journal is a file of JSON lines: what the run is of, then an outcome a line. Its name comes from what it is of, so
runs on other data, with another model or other settings never meet in one file, and each can be gone on with.
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from env.errors import KitError
from runtime.files import make_private
from runtime.measure.accuracy.dataset import DataSet

Basis = dict[str, str]  # what an outcome depends on, by name: data, model, settings


@dataclass(frozen=True)
class UtteranceOutcome:
    """What was heard of an utterance: `language` None is silence, or a language that was not told; `seconds` of audio;
    `repeated` characters were left out as endless repetition. `failure` says why nothing was heard, empty if it was."""

    name: str
    text: str = ""
    language: str | None = None
    seconds: float = 0.0
    truncated: bool = False
    repeated: int = 0
    failure: str = ""


class RunJournal:
    """An open journal. `outcomes` are those in it, by the utterance's name; `unreadable` lines count for nothing."""

    def __init__(self, path: Path, file: IO[str], outcomes: dict[str, UtteranceOutcome], unreadable: int) -> None:
        self.path, self.outcomes, self.unreadable = path, outcomes, unreadable
        self._file = file

    def add(self, outcome: UtteranceOutcome) -> None:
        """Write an outcome down. Raises KitError where the file takes no more."""
        try:
            self._file.write(_line(asdict(outcome)))
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self.outcomes[outcome.name] = outcome


def folder(out: Path, data: DataSet) -> Path:
    """Where all that is found on a data set is written."""
    return out / "accuracy" / (re.sub(r"[^\w.-]+", "-", data.name).strip("-.") or data.digest[:12])


@contextmanager
def opened(directory: Path, basis: Basis, *, fresh: bool = False) -> Iterator[RunJournal]:
    """The journal of this basis, begun or gone on with; a `fresh` one puts what there was aside.

    A line that was torn, as by a kill, is no outcome: its utterance is done again. Raises KitError where the file
    cannot be written, or another run has it.
    """
    mark = hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()[:12]
    path = directory / f"outcomes-{mark}.jsonl"
    try:
        make_private(directory)
        if fresh:
            _put_aside(path)
        file = path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise _unwritable(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KitError(str(path), "another run writes it", "wait for its end, or stop it") from None
        outcomes, unreadable = _read(file)
        if not path.stat().st_size:
            file.write(_line({"basis": basis}))
            file.flush()
        yield RunJournal(path, file, outcomes, unreadable)


def others(journal: RunJournal, basis: Basis) -> Iterator[str]:
    """For each other journal of the same data set by name, what differs in its basis, in words."""
    for path in sorted(journal.path.parent.glob("outcomes-*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:
            before = _parsed(file.readline()).get("basis")
        if path != journal.path and isinstance(before, dict) and before != basis:
            changed = [key for key in {**before, **basis} if before.get(key) != basis.get(key)]
            yield f"{path.name}: " + ", ".join(f"{key} {before.get(key) or '(none)'}" for key in changed)


def _read(file: IO[str]) -> tuple[dict[str, UtteranceOutcome], int]:
    """The outcomes, the last one of each utterance, and how many lines are none; what is written next has a line of
    its own."""
    file.seek(0)
    outcomes, unreadable, line = {}, 0, "\n"
    for line in file:
        content = _parsed(line)
        try:
            if "basis" not in content:
                outcome = UtteranceOutcome(**content)
                outcomes[outcome.name] = outcome
        except TypeError:
            unreadable += 1
    if not line.endswith("\n"):
        file.write("\n")
    return outcomes, unreadable


def _parsed(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _put_aside(path: Path) -> None:
    if path.exists():
        number = 1
        while (aside := path.with_suffix(f".jsonl.{number}")).exists():
            number += 1
        path.rename(aside)


def _unwritable(path: Path, error: OSError) -> KitError:
    return KitError(str(path), f"cannot be written: {error.strerror}", "set ASR_OUT_DIR to where there is room")
