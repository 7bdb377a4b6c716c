"""Hosts that the doctor examines in tests: directories laid out like a host's root, and answers of its commands.

Versions, paths and layouts are those of real hosts; the hosts are not.
"""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from env.sources import PROJECT, load_settings
from runtime.host.probe import Host
from runtime.ops.doctor.findings import Examination

SAMPLES = PROJECT / "tests" / "host" / "npu_smi"
GROUP = 1000  # HwHiAiUser
MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
CONTAINER = "3f9c" + "0" * 60


def write(root: Path, path: str, text: str = "x\n") -> None:
    """Write a file of the host."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def answer(root: Path, name: str, text: str) -> None:
    """Record what a command answers."""
    write(root, f"commands/{name}.txt", text)


def fault(root: Path, name: str, why: str, text: str = "") -> None:
    """Record that a command fails."""
    answer(root, name, f"# fault: {why}\n{text}")


def take_away(root: Path, path: str) -> None:
    """Remove a file or directory of the host."""
    target = root / path.lstrip("/")
    shutil.rmtree(target) if target.is_dir() else target.unlink()


def nodes(root: Path, names: list[str], *, mode: str = "660") -> None:
    """Record device nodes: making real ones takes root."""
    lines = (f"device {mode} {GROUP} {GROUP} /dev/{name}\n" for name in names)
    answer(root, "paths", "".join(lines))


def info(**changes: Any) -> str:
    """What `docker info` tells."""
    told = {
        "ServerVersion": "24.0.7",
        "DockerRootDir": "/var/lib/docker",
        "Runtimes": {"runc": {"path": "runc"}},
        "DefaultRuntime": "runc",
    }
    return json.dumps(told | changes) + "\n"


def container(name: str, *, ports: str = "", ours: bool = True, status: str = "Up 3 hours (healthy)") -> str:
    """A line of `docker ps`."""
    labels = "qwen3-asr.stack=npu,qwen3-asr.context=0" if ours else "maintainer=somebody"
    entry = {"ID": CONTAINER, "Names": name, "Ports": ports, "Status": status, "Labels": labels}
    return json.dumps(entry) + "\n"


def weights(*faults: str, size: int = 4_400_000_000) -> str:
    """What is known of the weights."""
    told = {"directory": "weights/Qwen3-ASR-1.7B", "faults": faults, "size": size}
    return json.dumps(told | {"advice": "invoke fetch-weights" if faults else ""}) + "\n"


def _machine(root: Path, machine: str) -> None:
    answer(root, "uname", f"Linux 5.10.0-216.0.0.115.oe2203sp4.{machine} {machine}\n")
    write(root, "/etc/os-release", 'NAME="openEuler"\nPRETTY_NAME="openEuler 22.03 (LTS-SP4)"\n')
    write(root, "/etc/hostname", "atlas\n")
    write(root, "/etc/group", f"root:x:0:\nHwHiAiUser:x:{GROUP}:\n")
    write(root, "/proc/meminfo", "MemTotal:       789563204 kB\nMemFree: 9 kB\nMemAvailable:   640112300 kB\n")
    for name in ("out", "weights", "image"):
        header = "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
        answer(root, f"disk-{name}", f"{header}/dev/sda2 943718400 9437184 886046208 2% /\n")
    answer(root, "image", "sha256:0\n")
    answer(root, "docker-info", info())
    answer(root, "docker-ps", "")
    answer(root, "compose-v2", "2.24.5\n")
    answer(root, "port", "")
    answer(root, "hub", "200")
    answer(root, "weights", weights())


def _driver(root: Path, version: str, folder: str) -> None:
    write(
        root,
        f"{folder}/driver/version.info",
        f"Version={version}\nascendhal_version=7.35.23\nInnerversion=V100R001C23SPC005B219\n"
        f"compatible_version_fw=[6.4.0,6.4.99],[7.0.0,8.9.9]\npackage_version={version}\n",
    )
    write(root, f"{folder}/driver/lib64/libdrvdsmi_host.so")
    write(
        root,
        f"{folder}/firmware/version.info",
        f"Version=7.8.0.2.212\nfirmware_version=1.0\npackage_version={version}\n",
    )
    write(root, "/usr/local/dcmi/libdcmi.so")
    write(
        root,
        "/etc/ascend_install.info",
        f"Driver_Install_Type=full\nDriver_Install_Path_Param={folder}\nDriver_Install_Status=complete\n",
    )


def atlas_800_a2(root: Path) -> Path:
    """An Atlas 800 A2 with eight idle 910B4."""
    _machine(root, "aarch64")
    _driver(root, "25.5.1", "/usr/local/Ascend")
    write(root, "/usr/local/bin/npu-smi", "#!/bin/sh\n")
    nodes(root, [*(f"davinci{number}" for number in range(8)), *MANAGERS])
    answer(root, "npu-smi-info", (SAMPLES / "910B4-x8-25.5.1.txt").read_text(encoding="utf-8"))
    return root


def atlas_300i_duo(root: Path) -> Path:
    """A server with two Atlas 300I Duo, of two 310P each; npu-smi is elsewhere, the driver too, behind a link."""
    _machine(root, "x86_64")
    _driver(root, "25.2.1", "/data/Ascend")
    (root / "usr/local/Ascend").mkdir()
    (root / "usr/local/Ascend/driver").symlink_to("/data/Ascend/driver")
    write(root, "/usr/local/sbin/npu-smi", "#!/bin/sh\n")
    nodes(root, [*(f"davinci{number}" for number in range(4)), *MANAGERS])
    answer(root, "npu-smi-info", (SAMPLES / "310P3-duo-x2-23.0.6.txt").read_text(encoding="utf-8"))
    return root


def kit_container(root: Path) -> Path:
    """The inside of the kit's container on an Atlas 800 A2, with one NPU."""
    _machine(root, "aarch64")
    _driver(root, "25.5.1", "/usr/local/Ascend")
    take_away(root, "/usr/local/Ascend/firmware")
    write(root, "/.dockerenv", "")
    write(root, "/usr/local/bin/npu-smi", "#!/bin/sh\n")
    info_file = "package_name=Ascend-cann-toolkit\nversion=8.5.1\ninnerversion=V100R001C25SPC001B232\narch=aarch64\n"
    write(root, "/usr/local/Ascend/cann-8.5.1/aarch64-linux/ascend_toolkit_install.info", info_file)
    (root / "usr/local/Ascend/ascend-toolkit").mkdir()
    (root / "usr/local/Ascend/ascend-toolkit/latest").symlink_to("/usr/local/Ascend/cann-8.5.1")
    for name in ("docker-info", "docker-ps", "compose-v2"):
        fault(root, name, "not found")
    nodes(root, ["davinci5", *MANAGERS], mode="666")
    answer(root, "npu-smi-info", (SAMPLES / "910B4-x8-25.5.1.txt").read_text(encoding="utf-8"))
    return root


def vllm_told(**changes: Any) -> str:
    """What the interpreter that has vLLM tells of itself: the image of vllm-ascend 0.18.0."""
    versions = {
        "vllm": "0.18.0+empty",
        "vllm-ascend": "0.18.0",
        "torch": "2.9.0+cpu",
        "torch-npu": "2.9.0.post1+gitee7ba04",
        "transformers": "4.57.6",
    }
    told = {
        "python": "3.11",
        "machine": "aarch64",
        "versions": {name: text for name, text in (versions | changes.pop("versions", {})).items() if text},
        "missing": [],
        "qwen_asr": False,
        "importers": [],
        "platforms": ["ascend"],
        "chosen": None,
    }
    return json.dumps(told | changes) + "\n"


def vllm_container(root: Path) -> Path:
    """The inside of the kit's container with vLLM, on an Atlas 800 A2 with one NPU."""
    kit_container(root)
    write(root, "/opt/python-beneath")
    answer(root, "vllm-python", vllm_told())
    return root


def script(folder: Path, name: str, text: str) -> None:
    """A command that stands for another, if its folder is first on PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def case(**variables: str) -> Examination:
    """This host, with these settings."""
    return Examination(Host(), load_settings(variables), quick=True, place="host")


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])
