"""The image's three targets on a stand-in base: what is installed, what is checked, what they share."""

import json
import os
import shlex
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from engine import Host, docker

from env.stacks import load_stack
from runtime.ops.lifecycle.wheels import find_links

MACHINE = os.uname().machine
A2 = {"ASR_PROFILE": "atlas-800-a2"}


def empty_wheel(directory: Path, name: str, version: str) -> None:
    """A wheel that installs nothing but its name."""
    stem = f"{name.replace('-', '_')}-{version}"
    information = f"{stem}.dist-info"
    parts = {
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(directory / f"{stem}-py3-none-any.whl", "w") as wheel:
        for path, text in parts.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{information}/RECORD", "".join(f"{path},,\n" for path in [*parts, f"{information}/RECORD"]))


def target(host: Host, built: str, name: str) -> dict[str, Any]:
    """How Docker describes a target, built with the command that built the cpu's."""
    line = next(line for line in built.splitlines() if line.startswith("$ docker build"))
    command = shlex.split(line.removeprefix("$ "))
    tag = f"qwen3-asr-kit-test/{name}:1"
    command[command.index("--target") + 1], command[command.index("--tag") + 1] = name, tag
    with find_links(os.environ.get("PIP_FIND_LINKS", "")) as links:
        environment = {**host.environment, "PIP_FIND_LINKS": links}
        subprocess.run(command, cwd=host.clone, env=environment, capture_output=True, check=True)
    (described,) = json.loads(docker("image", "inspect", tag))
    return dict(described["Config"])


def test_the_stack_for_npus_is_installed_by_its_hashes_and_refused_where_torch_is_hollow(
    host: Host, built: str, tmp_path: Path
) -> None:
    """torch and torch-npu are on no index that tests can count on: empty wheels of their names stand in for them."""
    assert built
    pins = {pin.name: pin.version for pin in load_stack("npu").pins_for(python="3.11", machine=MACHINE)}
    for name in ("torch", "torch-npu"):
        empty_wheel(tmp_path, name, pins[name])
    result = host.make("build", **A2, PIP_FIND_LINKS=str(tmp_path))
    assert result.returncode != 0
    assert f"Installed npu-{MACHINE}" in result.stdout
    assert "No module named 'torch'" in result.stdout.partition(f"Installed npu-{MACHINE}")[2]
    assert not docker("images", "--quiet", "qwen3-asr-ascend:0.1.0-atlas-800-a2")


@pytest.mark.usefixtures("built")
def test_what_vllms_image_lacks_is_installed_and_a_base_without_vllm_is_refused(host: Host) -> None:
    result = host.make("build", **A2, ASR_STACK="vllm")
    assert result.returncode != 0
    assert "RUN docker/check-image" in result.stdout  # so what comes before, installing, has passed
    assert "packaging is missing: this is not the image that the vllm stack stands on" in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize("name", ["npu", "vllm"])
def test_the_targets_for_npus_differ_from_the_cpus_by_their_user_alone(host: Host, built: str, name: str) -> None:
    cpu, other = target(host, built, "cpu"), target(host, built, name)
    assert cpu.pop("User") == "10001:10001"
    assert other.pop("User") == ""
    for config in (cpu, other):
        for key in ("Image", "Hostname"):  # of the builder's intermediate steps
            config.pop(key, None)
    assert cpu == other
    assert other["Entrypoint"] == ["/kit/docker/bin/with-cann"]
