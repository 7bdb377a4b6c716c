"""Where something was measured, and with what: what tells one piece of evidence from another."""

import os
import platform
from dataclasses import dataclass, field
from typing import Any

from env import stacks
from env.describe import MASK, describe
from env.settings import Settings
from runtime.device import Device, Silicon
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
        model=settings.model,
        revision=revision(settings),
        dtype=settings.dtype,
        versions={"python": platform.python_version(), **stacks.installed_versions()},
        settings={
            row.variable: row.value for row in describe(settings) if row.origin != "default" and row.value != MASK
        },
        **_machine(),
    )


def of_server(url: str, info: dict[str, Any]) -> Where:
    """A server that was asked over HTTP, by what its /v1/info says."""
    device, model = info["device"], info["model"]
    return Where(
        silicon=device["silicon"],
        device=device["name"],
        description=device["description"],
        why_not_npu="",
        engine="transformers",
        model=model["names"][0],
        revision=model["revision"] or "",
        dtype=model["dtype"],
        versions=info["versions"],
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
