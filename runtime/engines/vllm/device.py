"""What the model of a vLLM runs on: in other processes of this host, or on a host that nothing is known of."""

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.host.npu_smi import Chip, NpuSmiError, report
from runtime.host.probe import Host
from runtime.model.device import Device, DeviceError, Memory, Silicon

PROC = Path("/proc")
SIZE = re.compile(r"^(Vm(?:RSS|HWM)):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class ExternalServers(Device):
    """Servers that run already: `told` are their versions and addresses, `packages` the versions of packages there,
    both as far as they are known."""

    told: Callable[[], str] = str
    packages: Callable[[], dict[str, str]] = dict

    @property
    def is_npu(self) -> bool:
        """It may be one, but not one that this process can do anything with."""
        return False

    @property
    def silicon(self) -> Silicon:
        """Not known: vLLM does not tell it over HTTP."""
        return "unknown"

    def description(self) -> str:
        """Which vLLM, and where."""
        return self.told()

    @property
    def versions(self) -> dict[str, str]:
        """What the servers told, or their launcher."""
        return self.packages()

    @property
    def tells_memory(self) -> bool:
        """It does not."""
        return False

    def memory(self) -> Memory:
        """Raises DeviceError."""
        raise DeviceError(self.told(), "how much memory the model takes there is not known here")

    def reset_peak(self) -> bool:
        """Not possible from here."""
        return False

    def synchronize(self) -> None:
        """What a server has answered has run."""

    def empty_cache(self) -> int:
        """Nothing: that cache is another process's."""
        return 0


@dataclass(frozen=True)
class Children(ExternalServers):
    """Servers that the kit has started on this host, in process groups whose numbers `groups` tells; `npus` says
    whether they calculate on NPUs."""

    groups: Callable[[], Sequence[int]] = tuple
    npus: Callable[[], bool] = bool
    # The NPUs' models once they were told, which stay what they are: npu-smi takes its time, and each scrape asks.
    known: list[str] = field(default_factory=list)

    @property
    def silicon(self) -> Silicon:
        """As the servers' launcher told."""
        return "NPU" if self.npus() else "CPU"

    def description(self) -> str:
        """The NPUs' model where npu-smi tells it, or the CPU's architecture and number of cores; and which vLLM."""
        if not self.npus():
            return f"{platform.machine()} CPU, {os.cpu_count()} cores, {self.told()}"
        if not self.known:
            self.known.extend(sorted({chip.name for chip in _chips()}))
        return ", ".join([*self.known, self.told()])

    @property
    def tells_memory(self) -> bool:
        """On NPUs, whether npu-smi does."""
        return not self.npus() or any(chip.main_memory for chip in _chips())

    def memory(self) -> Memory:
        """Memory of all NPUs of this host or container, in use by whomever; on a CPU, of the servers' processes: the
        sum of their resident sizes, and of the peaks of each, which need not have been at one time."""
        if not self.npus():
            return _resident(self.groups())
        usages = [chip.main_memory for chip in _chips() if chip.main_memory]
        if not usages:
            raise DeviceError(self.told(), "npu-smi does not tell how much memory is in use", "npu-smi info")
        used, total = (sum(sizes) << 20 for sizes in zip(*((usage.used, usage.total) for usage in usages), strict=True))
        return Memory(used, used, used, total)


def _chips() -> tuple[Chip, ...]:
    """What npu-smi tells of; none where it does not."""
    try:
        return report(Host()).chips
    except NpuSmiError:
        return ()


def _resident(groups: Sequence[int]) -> Memory:
    """Memory of the processes in these groups."""
    found = {"VmRSS": 0, "VmHWM": 0}
    for entry in PROC.glob("[0-9]*"):
        try:
            # after the name, which may hold spaces and brackets: state, parent, group, see proc_pid_stat(5)
            group = int(entry.joinpath("stat").read_text(encoding="utf-8").rpartition(")")[2].split()[2])
            status = entry.joinpath("status").read_text(encoding="utf-8") if group in groups else ""
        except OSError:  # which has ended meanwhile
            continue
        for name, size in SIZE.findall(status):
            found[name] += int(size) << 10
    resident = found["VmRSS"]
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Memory(resident, resident, max(resident, found["VmHWM"]), total)
