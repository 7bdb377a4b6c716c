"""Evidence as files: JSON with a name and version of its form, that can be read back and compared.

A record is a frozen dataclass whose first field is `head`. What an interrupted run found is kept, and marked.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from env.errors import KitError, UsageError
from runtime.files import write_whole
from runtime.measure.where import Where

COMPLETE = "complete"  # Head.ended of a run that did all it was asked to


@dataclass(frozen=True)
class Head:
    """What every record begins with: the form's name and version; when the run began (UTC, ISO 8601), how many seconds
    it took, how it ended (`complete`, or in words why it is not), the command that repeats it, and where it ran."""

    form: str
    version: int
    begun: str
    seconds: float
    ended: str
    command: str
    where: Where

    @property
    def complete(self) -> bool:
        """Whether all that was asked for was done."""
        return self.ended == COMPLETE


class Record(Protocol):
    """A frozen dataclass with a head."""

    @property
    def head(self) -> Head:
        """What it begins with."""


Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True)
class Form:
    """A kind of record: its name and the version that this kit writes and reads."""

    name: str
    version: int


class Clock:
    """When a run began."""

    def __init__(self) -> None:
        self._begun, self._started = datetime.now(timezone.utc), time.monotonic()

    def head(self, form: Form, where: Where, *, ended: str = COMPLETE, command: Sequence[str] | None = None) -> Head:
        """The head of a record of what was done until now; the command is this process's own unless given."""
        words = ["invoke", *sys.argv[1:]] if command is None else command
        seconds = round(time.monotonic() - self._started, 3)
        begun = self._begun.isoformat(timespec="seconds")
        return Head(form.name, form.version, begun, seconds, ended, " ".join(words), where)


def write(path: Path, record: Record) -> None:
    """Write a record, whole or not at all. Raises KitError where it cannot be written."""
    write_whole(path, json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n")  # type: ignore[call-overload]


def read(path: Path, kind: type[Kind], form: Form) -> Kind:
    """Read a record back. Raises UsageError where there is no such file, KitError where it is no record of this form
    and version, or a damaged one."""
    content = _json(path)
    head = content.get("head") if isinstance(content, dict) else None
    if not isinstance(head, dict) or head.get("form") != form.name:
        raise KitError(str(path), f"is no record of {form.name}", f"give a file that invoke {form.name} wrote")
    if head.get("version") != form.version:
        reason = f"is written in version {head.get('version')} of its form, this kit reads version {form.version}"
        raise KitError(str(path), reason, f"measure again with this kit: invoke {form.name}")
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise KitError(
            str(path), f"is damaged: {field}: {first['msg']}", f"measure again: invoke {form.name}"
        ) from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(str(path), "no such file") from None
    except OSError as error:
        raise UsageError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise KitError(str(path), "is no JSON file, or cut off") from None
