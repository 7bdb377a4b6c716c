"""The one place that touches the device: choice, placement, synchronisation, memory, cache.

Nothing here imports torch before `open_device` has set the environment that torch_npu and CANN read once, at import.
"""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from env.errors import FaultError, KitError
from env.verify import AUTOLOAD
from runtime.files import make_private

OPERATOR_CACHE = "ACL_OP_COMPILER_CACHE_DIR"
PROCESS = Path("/proc/self")
SIMULATION = "simulation"  # what tests ask of the stand-in for torch_npu; the real one has nothing of this name

Silicon = Literal["NPU", "simulated NPU", "CPU", "unknown"]  # unknown: of a remote server, which does not report it


class DeviceError(KitError):
    """The device asked for cannot be used."""


class DeviceFaultError(DeviceError, FaultError):
    """The device is there and refuses its use: it is held by another process, is being reset, or is sick."""


class OutOfMemoryError(FaultError):
    """The weights, or one utterance on its own, do not fit into the device's memory."""


@dataclass(frozen=True)
class Memory:
    """Bytes: in use by tensors, held by the allocator, the most in use since `reset_peak`, and what the device has."""

    used: int
    reserved: int
    peak: int
    total: int


@dataclass(frozen=True)
class Device:
    """Where the model runs: `name` as torch says it (`cpu`, `npu:0`), and in `reason` why not on an NPU, if so."""

    name: str
    reason: str = ""

    @property
    def is_npu(self) -> bool:
        """Whether this is an NPU, real or simulated."""
        return self.name.startswith("npu")

    @property
    def silicon(self) -> Silicon:
        """What calculates: an NPU, the simulated one of the tests, or a CPU."""
        if not self.is_npu:
            return "CPU"
        return "simulated NPU" if hasattr(sys.modules["torch_npu"], SIMULATION) else "NPU"

    def description(self) -> str:
        """The device's model, such as `Ascend910B4`, or the CPU's architecture and number of cores. Of the same device
        it is the same in every run, as records are distinguished by it: no ports that change, no versions."""
        if self.is_npu:
            return str(_npu().get_device_name(self.name))
        return f"{platform.machine()} CPU, {os.cpu_count()} cores"

    @property
    def versions(self) -> dict[str, str]:
        """Of the packages that calculate in other processes, vllm and others, as far as they are known; none of this
        process's."""
        return {}

    @property
    def reports_memory(self) -> bool:
        """Whether `memory` can be asked. A model in another process may be on a device of which nothing is known."""
        return True

    def synchronize(self) -> None:
        """Wait until everything launched on the device has run."""
        if self.is_npu:
            _npu().synchronize(self.name)

    def memory(self) -> Memory:
        """Memory of the device; on a CPU, of this process, whose `used` and `reserved` are its resident size. Raises
        DeviceError where it is not known, see `reports_memory`."""
        if self.is_npu:
            npu = _npu()
            return Memory(
                used=npu.memory_allocated(self.name),
                reserved=npu.memory_reserved(self.name),
                peak=npu.max_memory_allocated(self.name),
                total=npu.mem_get_info(self.name)[1],
            )
        sizes = dict(re.findall(r"(\w+):\s+(\d+) kB", PROCESS.joinpath("status").read_text(encoding="utf-8")))
        resident = int(sizes["VmRSS"]) << 10
        peak = int(sizes.get("VmHWM", 0)) << 10  # which not every kernel reports
        return Memory(resident, resident, max(peak, resident), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))

    def reset_peak(self) -> bool:
        """Reset the peak; returns whether that is possible. A CPU's peak is the process's, which the
        kernel keeps, and not every kernel lets it be reset."""
        if self.is_npu:
            _npu().reset_peak_memory_stats(self.name)
            return True
        try:
            PROCESS.joinpath("clear_refs").write_text("5", encoding="ascii")  # 5: the peak, see proc_pid_clear_refs(5)
        except OSError:
            return False
        return True

    def empty_cache(self) -> int:
        """Give memory that the allocator holds, but no tensor uses, back to the device; returns bytes."""
        if not self.is_npu:
            return 0
        npu = _npu()
        npu.set_device(self.name)  # of the calling thread, which may be another than the one that opened it
        before = npu.memory_reserved(self.name)
        npu.empty_cache()
        return int(before - npu.memory_reserved(self.name))


def open_device(wanted: str, *, exports: Mapping[str, str], jit_compile: bool = False) -> Device:
    """Choose and prepare a device: `auto` (an NPU if one can be used, else the CPU), `cpu`, `npu` or `npu:N`.

    `exports` are environment variables of torch_npu and CANN, set before either loads. `jit_compile` False makes
    torch_npu use the operators' precompiled kernels; True compiles each for each new shape.

    Raises DeviceError where an NPU was asked for by name and cannot be used (DeviceFaultError: as it is now), or the
    operators' cache cannot be made.
    """
    make_operator_cache(exports)
    os.environ.update(exports)
    keep_torch_npu_out()
    if wanted == "cpu":
        return Device("cpu", "ASR_DEVICE asks for the CPU")
    index = int(wanted.partition(":")[2] or 0)
    try:
        _check_usable(wanted, index)
    except DeviceError as error:
        if wanted == "auto":
            return Device("cpu", error.reason)
        raise
    _npu().set_compile_mode(jit_compile=jit_compile)
    return Device(f"npu:{index}")


def make_operator_cache(exports: Mapping[str, str]) -> None:
    """Create the directory that CANN is told to keep operators in, which it does not do itself; there may be none.

    Raises DeviceError where that is not possible.
    """
    if OPERATOR_CACHE not in exports:
        return
    directory = Path(exports[OPERATOR_CACHE])
    try:
        make_private(directory)
    except OSError as error:
        reason = f"{directory} cannot be created: {error.strerror}"
        raise DeviceError("ASR_OP_CACHE_DIR", reason, "set it to a directory that can be written") from None


def keep_torch_npu_out() -> None:
    """Have torch, imported from now on, leave torch_npu and the NPU alone."""
    os.environ[AUTOLOAD] = "0"


def trim_heap() -> None:
    """Give memory that the C library keeps of what was freed back to the system, so that a process's size is what it
    uses. Only glibc keeps much."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the host, ran out of memory.

    torch_npu raises a plain RuntimeError ("NPU out of memory. Tried to allocate …") in some places and torch's
    OutOfMemoryError in others; the CPU's allocator says "DefaultCPUAllocator: can't allocate memory".
    """
    import torch

    words = str(error).lower()
    is_memory = "out of memory" in words or "can't allocate memory" in words
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and is_memory)


def _npu() -> Any:
    import torch

    return torch.npu  # type: ignore[attr-defined]  # torch_npu puts it there


def _check_usable(wanted: str, index: int) -> None:
    """Raises DeviceError, with the next step, where NPU `index` cannot be used; DeviceFaultError where it is there, or
    CANN cannot tell."""
    try:
        import torch_npu  # noqa: F401 - there on Ascend hosts only
    except ModuleNotFoundError as error:
        reason = f"torch_npu cannot be imported: {error}"
        if error.name == "torch_npu":
            reason = "torch_npu is not installed: install the npu stack (python env/install.py npu)"
        raise DeviceError(wanted, reason) from None
    except (ImportError, RuntimeError, OSError) as error:
        raise DeviceError(wanted, _import_failure(str(error))) from None
    try:
        count = _npu().device_count()
        if index >= count:  # of several, another number was meant; with none, the only one may be away for a while
            raise (DeviceError if count else DeviceFaultError)(wanted, _not_visible(index, count))
        _npu().set_device(index)
        _npu().mem_get_info(index)
    except RuntimeError as error:
        raise DeviceFaultError(wanted, _use_failure(index, str(error))) from None


def _import_failure(message: str) -> str:
    """The cause and cure of torch_npu's known import failures, by CANN's message."""
    first = message.strip().partition("\n")[0]
    if "libascend_hal" in message:
        return f"the NPU driver's libraries are missing ({first}): mount /usr/local/Ascend/driver/lib64, or install it"
    if "libhccl" in message or "libascendcl" in message or "cannot open shared object" in message:
        return f"CANN is not in the environment ({first}): source /usr/local/Ascend/ascend-toolkit/set_env.sh"
    if "cuda" in message.lower():
        return f"a CUDA build of torch stands beside torch_npu ({first}): install the CPU build of torch"
    return f"torch_npu cannot be imported: {first}"


def _not_visible(index: int, count: int) -> str:
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    hint = f" (ASCEND_RT_VISIBLE_DEVICES={visible})" if visible else ""
    return f"torch_npu sees {count} NPUs{hint}, so there is no npu:{index}: see npu-smi info, and ls /dev/davinci*"


def _use_failure(index: int, message: str) -> str:
    """Why an NPU could not be counted or refused its first use, from CANN's own words."""
    first = message.strip().partition("\n")[0]
    if "aclrtGetDeviceCount" in message:
        return _not_visible(index, 0)
    if "resources are busy" in message.lower():
        return f"npu:{index} is held by another process ({first}): see npu-smi info, or set ASR_DEVICE to another"
    return f"npu:{index} refused its first use ({first}): see npu-smi info -t health -i {index}"


@dataclass(frozen=True)
class Emptied:
    """Bytes that a process holds on a device before and after its cache was emptied, or would be, and what that gives
    back."""

    device: str
    reserved_before: int
    reserved_after: int
    freed: int
    dry_run: bool

    def __str__(self) -> str:
        done, later = ("would be freed", "then") if self.dry_run else ("freed", "now")
        held = f"{mib(self.reserved_before)} reserved before, {later} {mib(self.reserved_after)}"
        return f"{self.device}: {mib(self.freed)} {done}; {held}"


def empty(device: Device, *, dry_run: bool) -> Emptied:
    """Empty this process's cache on a device."""
    before = device.memory()
    if dry_run:
        unused = before.reserved - before.used if device.is_npu else 0
        return Emptied(device.name, before.reserved, before.reserved - unused, unused, dry_run=True)
    freed = device.empty_cache()
    return Emptied(device.name, before.reserved, device.memory().reserved, freed, dry_run=False)


def mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
