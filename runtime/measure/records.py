"""Evidence as files: JSON with a name and version of its form, that can be read back and compared.

A record is a frozen dataclass whose first field is `head`. What an interrupted run found is kept, and marked.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from env import stacks
from env.errors import KitError, UsageError
from env.groups.model import EngineName
from env.reference import MASK, describe
from env.settings import Settings
from runtime import version
from runtime.files import write_whole
from runtime.measure import random_weights
from runtime.model.device import Device, Silicon
from runtime.ops.deploy import image
from runtime.ops.image_manifest import MANIFEST, read_manifest
from runtime.weights.catalog import revision

CALCULATING = ("vllm", "vllm-ascend", "torch", "torch-npu", "transformers")  # packages that results depend on

if TYPE_CHECKING:
    from runtime.transcriber import Transcriber

COMPLETE = "complete"  # Head.ended of a run that did all it was asked to


@dataclass(frozen=True)
class Where:
    """The host, its device and the model; `commit` is the kit's, empty where it is not known; `settings` are those that
    are not the default, without secrets; `url` is the server that was asked, empty for this process. Of a server,
    `host` to `commit` are those of the machine that asked. `versions` are this process's or the server's; of what
    calculates in other processes, theirs. Sizes in bytes."""

    silicon: Silicon
    device: str
    description: str
    why_not_npu: str
    engine: str
    model: str
    revision: str
    dtype: str
    host: str
    machine: str
    system: str
    cores: int
    memory: int
    kit: str
    commit: str
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    url: str = ""

    @property
    def engine_and_version(self) -> str:
        """The engine, with the version of the package that it is named after, if that is known."""
        return f"{self.engine} {self.versions[self.engine]}" if self.engine in self.versions else self.engine


def here(settings: Settings, device: Device) -> Where:
    """This process, with the device that it opened, or that of the engine that has the model in other processes."""
    return Where(
        silicon=device.silicon,
        device=device.name,
        description=device.description(),
        why_not_npu=device.reason,
        engine=settings.engine_name,
        model=random_weights.shown(settings),
        revision=revision(settings),
        dtype=settings.dtype,
        versions={"python": platform.python_version(), **_packages(settings), **device.versions},
        settings={
            row.variable: row.value for row in describe(settings) if row.origin != "default" and row.value != MASK
        },
        **_machine(),
    )


def _packages(settings: Settings) -> dict[str, str]:
    """What is installed here, less what calculates only in vLLM's processes, which may have other versions of it."""
    found = stacks.installed_versions()
    elsewhere = CALCULATING if settings.engine_name == "vllm" else ()
    return {name: version for name, version in found.items() if name not in elsewhere}


def of(transcriber: "Transcriber") -> Where:
    """The engine that a transcriber has."""
    return here(transcriber.settings, transcriber.device)


class _Engine(BaseModel):
    name: EngineName


class _Device(BaseModel):
    silicon: Silicon
    name: str
    description: str


class _Model(BaseModel):
    names: list[str]
    revision: str | None
    dtype: str


class _Info(BaseModel):
    """What of /v1/info tells where a server runs."""

    device: _Device
    model: _Model
    versions: dict[str, str]
    engine: _Engine


def of_server(url: str, info: dict[str, Any]) -> Where:
    """A server that was asked over HTTP, by what its /v1/info says. Raises KitError where it says other things than
    this kit's."""
    try:
        told = _Info.model_validate(info)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        reason = f"is no server of this version of the kit: /v1/info, {field}: {first['msg']}"
        raise KitError(url, reason, "ask it with the kit that it runs") from None
    return Where(
        silicon=told.device.silicon,
        device=told.device.name,
        description=told.device.description,
        why_not_npu="",
        engine=told.engine.name,
        model=told.model.names[0] if told.model.names else "",
        revision=told.model.revision or "",
        dtype=told.model.dtype,
        versions=told.versions,
        url=url,
        **_machine(),
    )


def _machine() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count() or 0,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kit": version.version(),
        "commit": read_manifest(MANIFEST).commit if MANIFEST.is_file() else image.revision(),
    }


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


class HeadedRecord(Protocol):
    """A frozen dataclass with a head."""

    @property
    def head(self) -> Head:
        """What it begins with."""


Kind = TypeVar("Kind", bound=HeadedRecord)


@dataclass(frozen=True)
class Form:
    """A kind of record: its name and the version that this kit writes and reads."""

    name: str
    version: int


class RunClock:
    """When a run began."""

    def __init__(self) -> None:
        self._begun, self._started = datetime.now(timezone.utc), time.monotonic()

    def head(self, form: Form, where: Where, *, ended: str = COMPLETE, command: Sequence[str] | None = None) -> Head:
        """The head of a record of what was done until now; the command is this process's own unless given."""
        words = ["invoke", *sys.argv[1:]] if command is None else command
        seconds = round(time.monotonic() - self._started, 3)
        begun = self._begun.isoformat(timespec="seconds")
        return Head(form.name, form.version, begun, seconds, ended, " ".join(words), where)


def write(path: Path, record: HeadedRecord) -> None:
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
