"""Where something was measured, and with what: what tells one piece of evidence from another."""

import os
import platform
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from env import stacks
from env.describe import MASK, describe
from env.settings import Settings
from runtime.device import Device, Silicon
from runtime.errors import KitError
from runtime.measure import random_weights
from runtime.ops.lifecycle import image
from runtime.ops.manifest import MANIFEST, read_manifest
from runtime.ops.weights.revision import revision


@dataclass(frozen=True)
class Where:
    """The host, its device and the model; `commit` is the kit's, empty where it is not known; `settings` are those that
    are not the default, without secrets; `url` is the server that was asked, empty for this process. Of a server,
    `host` to `commit` are those of the machine that asked. Sizes in bytes."""

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


def here(settings: Settings, device: Device) -> Where:
    """This process, with the device that it opened."""
    return Where(
        silicon=device.silicon,
        device=device.name,
        description=device.description(),
        why_not_npu=device.reason,
        engine="transformers",
        model=random_weights.shown(settings),
        revision=revision(settings),
        dtype=settings.dtype,
        versions={"python": platform.python_version(), **stacks.installed_versions()},
        settings={
            row.variable: row.value for row in describe(settings) if row.origin != "default" and row.value != MASK
        },
        **_machine(),
    )


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
        engine="transformers",
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
        "kit": image.version(),
        "commit": read_manifest(MANIFEST).commit if MANIFEST.is_file() else image.revision(),
    }
