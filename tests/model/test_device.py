"""The device is chosen, or refused in words an operator can act on; memory and cache go through it."""

import json
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulated_npu import environment, on_npu, stand_in

from env.sources import PROJECT
from runtime.model import device
from runtime.model.device import Device, DeviceError, is_out_of_memory, open_device

OPEN = """
import json, sys
from runtime.model.device import open_device
from env.errors import KitError
try:
    device = open_device(sys.argv[1], exports=json.loads(sys.argv[2]))
    print(json.dumps([device.name, device.reason]))
except KitError as error:
    print(json.dumps(["refused", str(error)]))
"""


def opened(wanted: str, failure: str | None = None, script: str = OPEN, **exports: str) -> Any:
    """What a new process on a machine with a simulated NPU, or with one that fails, makes of `open_device`."""
    command = [sys.executable, "-c", script, wanted, json.dumps(exports)]
    result = subprocess.run(
        command, cwd=PROJECT, env=environment(failure), capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(result.stdout)


def test_auto_takes_the_npu() -> None:
    assert opened("auto") == ["npu:0", ""]


def test_the_cpu_can_be_asked_for() -> None:
    assert opened("cpu") == ["cpu", "ASR_DEVICE asks for the CPU"]


FAILURES = {
    "cann": ("CANN is not in the environment", "source /usr/local/Ascend/ascend-toolkit/set_env.sh"),
    "driver": ("the NPU driver's libraries are missing", "mount /usr/local/Ascend/driver/lib64"),
    "cuda": ("a CUDA build of torch stands beside torch_npu", "install the CPU build of torch"),
    "busy": ("npu:0 is held by another process", "npu-smi info"),
    "none-visible": ("torch_npu sees 0 NPUs", "npu-smi info"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_auto_falls_back_and_says_why(failure: str) -> None:
    name, reason = opened("auto", failure)
    assert name == "cpu"
    for words in FAILURES[failure]:
        assert words in reason


@pytest.mark.parametrize("failure", FAILURES)
def test_an_npu_asked_for_by_name_is_an_error_with_the_reason(failure: str) -> None:
    name, reason = opened("npu", failure)
    assert name == "refused"
    for words in ("npu: ", *FAILURES[failure]):
        assert words in reason


def test_an_npu_that_is_not_there() -> None:
    assert opened("npu:7") == [
        "refused",
        "npu:7: torch_npu sees 1 NPUs, so there is no npu:7: see npu-smi info, and ls /dev/davinci*",
    ]


def test_without_torch_npu_auto_says_what_to_install() -> None:
    device = open_device("auto", exports={})
    assert device.name == "cpu"
    assert "torch_npu is not installed" in device.reason
    with pytest.raises(DeviceError, match="install the npu stack"):
        open_device("npu:0", exports={})


def test_the_operators_cache_is_made_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACL_OP_COMPILER_CACHE_DIR", "")  # put back afterwards
    cache = tmp_path / "a" / "b"
    open_device("cpu", exports={"ACL_OP_COMPILER_CACHE_DIR": str(cache)})
    assert cache.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match=r"ASR_OP_CACHE_DIR: .*file.* cannot be created"):
        open_device("cpu", exports={"ACL_OP_COMPILER_CACHE_DIR": str(tmp_path / "file" / "b")})


def test_settings_are_in_the_environment_before_torch_npu_loads() -> None:
    script = OPEN + "import torch_npu; print(json.dumps([torch_npu.simulation.ENVIRONMENT, torch_npu.simulation."
    script = script.replace("print(json.dumps([device", "str(([device").replace("reason]))", "reason]))", 1)
    script += "settings()]))"
    wanted = {"TASK_QUEUE_ENABLE": "2", "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True", "OMP_NUM_THREADS": "3"}
    seen, told = opened("npu", script=script, **wanted)
    assert wanted.items() <= dict(seen).items()
    assert dict(told)["jit_compile"] is False


@on_npu
def test_memory_and_cache_of_the_npu() -> None:
    import torch

    device = Device("npu:0")
    before = device.memory()
    device.reset_peak()
    block = torch.zeros(2**20, device=device.name)
    held = device.memory()
    assert 4 * 2**20 <= held.used - before.used < 4 * 2**20 + 1024  # rounded up to blocks
    assert held.total > held.reserved >= held.used
    del block
    device.synchronize()
    assert device.memory().used == before.used
    assert device.memory().peak >= held.used
    assert device.empty_cache() >= 4 * 2**20
    assert device.empty_cache() == 0
    assert "simulated" in device.description()


def test_memory_of_the_cpu_is_the_processs() -> None:
    memory = Device("cpu").memory()
    assert 0 < memory.used <= memory.peak <= memory.total
    assert Device("cpu").empty_cache() == 0


def test_the_peak_of_the_process_begins_anew() -> None:
    cpu = Device("cpu")
    before = cpu.memory().used
    with mmap.mmap(-1, 2**26) as block:  # fresh pages, whatever the C library has kept
        block[:: 2**12] = b"1" * 2**14
        assert cpu.memory().used >= before + 2**25
    peak = cpu.memory().peak
    assert peak >= before + 2**25
    assert cpu.reset_peak()
    assert cpu.memory().peak <= peak - 2**25


def test_a_kernel_that_tells_less_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t  1024 kB\n", encoding="utf-8")
    (tmp_path / "clear_refs").mkdir()
    monkeypatch.setattr(device, "PROCESS", tmp_path)
    memory = Device("cpu").memory()
    assert memory.used == memory.peak == 2**20
    assert not Device("cpu").reset_peak()


@on_npu
def test_running_out_of_memory_is_told_from_other_failures() -> None:
    import torch

    with stand_in().simulation.limit_memory(2**20), pytest.raises(RuntimeError) as full:
        torch.zeros(2**20, device="npu:0")
    assert is_out_of_memory(full.value)
    assert is_out_of_memory(RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
