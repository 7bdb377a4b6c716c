"""Hosts for the tests of a container's life: commands that say what a test wants, and an Atlas 800 A2's files."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from env.sources import load_settings
from runtime.host import docker
from runtime.ops.deploy import override

Fake = Callable[[str, str], None]
A2 = "atlas-800-a2"
NODES = ("davinci0", "davinci1", "davinci2", "davinci3", "davinci_manager", "devmm_svm", "hisi_hdc")


def faking(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a command: a shell script that comes first on PATH."""
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    # Which compose there is, is asked once: not for the tests that come after.
    monkeypatch.setattr(docker, "compose_command", functools.cache(docker.compose_command.__wrapped__))
    return make


def an_a2(folder: Path) -> Path:
    """Its files: four NPUs, the driver, and an empty directory that Docker made of a missing npu-smi."""
    for node in NODES:
        (folder / "dev" / node).parent.mkdir(parents=True, exist_ok=True)
        (folder / "dev" / node).touch()
    for name in (
        "usr/local/Ascend/driver/lib64/libascend_hal.so",
        "usr/local/sbin/npu-smi",
        "usr/local/dcmi/libdcmi.so",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "usr/local/bin/npu-smi").mkdir(parents=True)
    return folder


def described(root: Path, tmp_path: Path, **variables: str) -> dict[str, Any]:
    """The service of the second compose file."""
    environment = {"ASR_OUT_DIR": str(tmp_path / "out"), **variables}
    service = override.describe(load_settings(environment), root=root, environment=environment)["services"]["asr"]
    return dict(service)
