"""Where something was measured, and with what: what tells one piece of evidence from another."""

import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from env import stacks
from env.errors import KitError
from env.groups.model import EngineName
from env.reference import MASK, describe
from env.settings import Settings
from runtime import version
from runtime.measure import random_weights
from runtime.model.device import Device, Silicon
from runtime.ops.deploy import image
from runtime.ops.image_manifest import MANIFEST, read_manifest
from runtime.weights.catalog import revision

CALCULATING = ("vllm", "vllm-ascend", "torch", "torch-npu", "transformers")  # packages that results depend on

if TYPE_CHECKING:
    from runtime.transcriber import Transcriber


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
