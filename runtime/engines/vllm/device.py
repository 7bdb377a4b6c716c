"""The device of vLLM servers: of processes on this host, or of remote servers, of which little is known."""

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.host.npu_smi import Chip, NpuSmiError, read_report
from runtime.host.probe import Host
from runtime.model.device import Device, DeviceError, Memory, Silicon

PROC = Path("/proc")
STATUS_SIZE = re.compile(r"^(Vm(?:RSS|HWM)):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class ExternalServers(Device):
    """Servers that run already. `describe` returns their versions and addresses, `package_versions` the versions of
    packages there, both as far as they are known."""

    describe: Callable[[], str] = str
    package_versions: Callable[[], dict[str, str]] = dict

    @property
    def is_npu(self) -> bool:
        """False: it may be an NPU, but none that this process can use."""
        return False

    @property
    def silicon(self) -> Silicon:
        """Unknown: vLLM does not report it over HTTP."""
        return "unknown"

    def description(self) -> str:
        """The version and address of each vLLM."""
        return self.describe()

    @property
    def versions(self) -> dict[str, str]:
        """Package versions that the servers, or their launcher, reported."""
        return self.package_versions()

    @property
    def reports_memory(self) -> bool:
        """False: vLLM does not report its memory over HTTP."""
        return False

    def memory(self) -> Memory:
        """Raises DeviceError: the memory of a remote server is not known."""
        raise DeviceError(self.describe(), "how much memory the model takes there is not known here")

    def reset_peak(self) -> bool:
        """Returns False: the peak is kept in another process."""
        return False

    def synchronize(self) -> None:
        """Does nothing: what a server has answered has run."""

    def empty_cache(self) -> int:
        """Does nothing and returns 0: the cache is another process's."""
        return 0


@dataclass(frozen=True)
class LocalServers(ExternalServers):
    """Servers that the kit has started on this host. `process_groups` returns the ids of their process groups,
    `on_npus` whether they run on NPUs."""

    process_groups: Callable[[], Sequence[int]] = tuple
    on_npus: Callable[[], bool] = bool
    # The NPUs' models, read once: npu-smi is slow, and each scrape of the metrics asks.
    npu_models: list[str] = field(default_factory=list)

    @property
    def silicon(self) -> Silicon:
        """NPU or CPU, as the servers' launcher reported."""
        return "NPU" if self.on_npus() else "CPU"

    def description(self) -> str:
        """The NPUs' model where npu-smi reports it, or the CPU's architecture and number of cores; and which vLLM."""
        if not self.on_npus():
            return f"{platform.machine()} CPU, {os.cpu_count()} cores, {self.describe()}"
        if not self.npu_models:
            self.npu_models.extend(sorted({chip.name for chip in _chips()}))
        return ", ".join([*self.npu_models, self.describe()])

    @property
    def reports_memory(self) -> bool:
        """True on a CPU; on NPUs, whether npu-smi reports memory."""
        return not self.on_npus() or any(chip.main_memory for chip in _chips())

    def memory(self) -> Memory:
        """Memory of all NPUs of this host or container, in use by whomever; on a CPU, of the servers' processes: the
        sum of their resident sizes, and of the peaks of each, which need not have been at one time."""
        if not self.on_npus():
            return _resident(self.process_groups())
        usages = [chip.main_memory for chip in _chips() if chip.main_memory]
        if not usages:
            raise DeviceError(self.describe(), "npu-smi does not tell how much memory is in use", "npu-smi info")
        used, total = (sum(sizes) << 20 for sizes in zip(*((usage.used, usage.total) for usage in usages), strict=True))
        return Memory(used, used, used, total)


def _chips() -> tuple[Chip, ...]:
    """The chips that npu-smi lists; none where it fails."""
    try:
        return read_report(Host()).chips
    except NpuSmiError:
        return ()


def _resident(process_groups: Sequence[int]) -> Memory:
    """Memory of all processes in these process groups."""
    found = {"VmRSS": 0, "VmHWM": 0}
    for entry in PROC.glob("[0-9]*"):
        try:
            # after the name, which may hold spaces and brackets: state, parent, group, see proc_pid_stat(5)
            group = int(entry.joinpath("stat").read_text(encoding="utf-8").rpartition(")")[2].split()[2])
            status = entry.joinpath("status").read_text(encoding="utf-8") if group in process_groups else ""
        except OSError:  # which has ended meanwhile
            continue
        for name, size in STATUS_SIZE.findall(status):
            found[name] += int(size) << 10
    resident = found["VmRSS"]
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Memory(resident, resident, max(resident, found["VmHWM"]), total)
