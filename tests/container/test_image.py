"""The image's three targets on a stand-in base: what is installed, what is checked, what they share."""

import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from engine import Host, docker, layered, stand_in_base

from env.stacks import load_stack
from runtime.ops.deploy.image import find_links
from runtime.ops.doctor.vllm_probe import AUDIO

MACHINE = os.uname().machine
A2 = {"ASR_PROFILE": "atlas-800-a2"}
VLLM_BASE = "qwen3-asr-kit-test/beneath:1"


def empty_wheel(directory: Path, name: str, version: str, *modules: str) -> None:
    """A wheel that installs nothing but its name, and modules without anything in them."""
    stem = f"{name.replace('-', '_')}-{version}"
    information = f"{stem}.dist-info"
    parts = {
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **{f"{module}.py": "" for module in modules},
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
    assert "Installed npu in" in result.stdout
    assert "No module named 'torch'" in result.stdout.partition("Installed npu in")[2]
    assert not docker("images", "--quiet", "qwen3-asr-ascend:0.1.0-atlas-800-a2")


@pytest.mark.usefixtures("built")
def test_a_base_without_vllm_is_refused_before_anything_is_fetched(host: Host) -> None:
    result = host.make("build", **A2, ASR_STACK="vllm")
    assert result.returncode != 0
    assert "goes above the Python of an image like quay.io/ascend/vllm-ascend:v0.18.0" in result.stdout
    assert "here is no vllm, vllm-ascend, torch, " in result.stdout
    assert "Fetching" not in result.stdout
    assert "Traceback" not in result.stdout


@pytest.fixture(scope="module")
def above(host: Host, built: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of the vllm stack, on a base that has of vLLM's image numpy, else the names and versions alone, and a
    fastapi that vllm-ascend accepts but the kit's server does not."""
    assert built
    wheels = tmp_path_factory.mktemp("beneath")
    pins = load_stack("vllm").pins_for(python="3.11", machine=MACHINE)
    beneath = {pin.name: pin.version for pin in pins if pin.image}
    numpy = ["--dest", str(wheels), "--python-version", "3.11", f"numpy=={beneath.pop('numpy')}"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, *numpy], check=True)
    for name, version in {**beneath, "fastapi": "0.123.10"}.items():
        empty_wheel(wheels, name, version)
    for name in AUDIO:
        empty_wheel(wheels, name, "1.0", name)
    files = {f"wheels/{path.name}": path.read_bytes() for path in wheels.iterdir()}
    install = "RUN python3 -m pip install --no-index --no-deps --root-user-action ignore /wheels/*.whl"
    base = layered(stand_in_base(), VLLM_BASE, instructions=f"COPY wheels /wheels\n{install}", files=files)
    name = "qwen3-asr-kit-test/above:1"
    result = host.make("build", **A2, ASR_STACK="vllm", ASR_BASE_IMAGE=base, ASR_IMAGE=name)
    assert result.returncode == 0, result.stdout
    return name


def test_the_kit_stands_above_vllms_python_and_changes_nothing_there(above: str) -> None:
    listing = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    before = json.loads(docker("run", "--rm", VLLM_BASE, "python3", "-c", listing))
    beneath = json.loads(docker("run", "--rm", above, "/opt/python-beneath", "-c", listing))
    assert beneath == before
    assert beneath["fastapi"] == "0.123.10"
    versions = docker("run", "--rm", "--network", "none", "--read-only", above, "invoke", "versions", "--stack", "vllm")
    assert "matters" not in versions
    code = "import fastapi, sys; print(fastapi.__version__, sys.prefix, sys.flags.dont_write_bytecode)"
    pin = next(pin for pin in load_stack("vllm").pins if pin.name == "fastapi")
    assert docker("run", "--rm", above, "python3", "-c", code) == f"{pin.version} /opt/kit 1"


@pytest.mark.parametrize("name", ["npu", "vllm"])
def test_the_targets_for_npus_differ_from_the_cpus_by_their_user_and_by_what_vllm_needs(
    host: Host, built: str, name: str
) -> None:
    cpu, other = target(host, built, "cpu"), target(host, built, name)
    assert cpu.pop("User") == "10001:10001"
    assert other.pop("User") == ""
    for config in (cpu, other):
        for key in ("Image", "Hostname"):  # of the builder's intermediate steps
            config.pop(key, None)
    if name == "vllm":
        assert other["Env"].pop() == "ASR_VLLM_PYTHON=/opt/python-beneath"
    assert cpu == other
    assert other["Entrypoint"] == ["/kit/docker/bin/with-cann"]
    assert other["Cmd"] == ["invoke", "serve"]
