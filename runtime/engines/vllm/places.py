"""What each vLLM that the kit starts calculates on: an NPU of its own, or the CPU."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from env.errors import UsageError
from env.field import variable
from env.settings import Settings
from runtime.engines.vllm.launcher import IMAGE
from runtime.host.npu_smi import numbers

VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"  # CANN's: the NPUs that a process sees; it counts them from 0
DEVICES = Path("/dev")


@dataclass(frozen=True)
class Place:
    """A device by the `name` that it has in this process (`npu:0`, `cpu`), and how CANN is to know it; empty for a CPU.
    `wanted` is what vLLM must find there, auto where anything will do."""

    name: str
    visible: str
    wanted: Literal["npu", "cpu", "auto"]

    @property
    def is_npu(self) -> bool:
        """Whether this is an NPU."""
        return bool(self.visible)


def places(settings: Settings, *, replicas: int | None) -> list[Place]:
    """A place for each of `replicas` servers; None: for one on each NPU, or for one on the CPU.

    The NPUs are those of ASCEND_RT_VISIBLE_DEVICES where it is set, else all that a container has, else those of
    ASR_NPUS. Raises UsageError where there are not as many.
    """
    kind, _, index = settings.device.partition(":")
    nodes = sum(path.name.removeprefix("davinci").isdecimal() for path in DEVICES.glob("davinci[0-9]*"))
    if kind == "cpu" or (kind == "auto" and not nodes):
        wanted: Literal["cpu", "auto"] = "cpu" if kind == "cpu" else "auto"
        return [_on_cpu(number, replicas or 1, wanted) for number in range(replicas or 1)]
    if index and (replicas or 1) > 1:
        reason = f"{replicas} servers want an NPU each, and ASR_DEVICE={settings.device} is one"
        raise UsageError(variable("vllm_replicas"), reason, "export ASR_DEVICE=npu")
    npus = _visible() or _given(settings, nodes)
    if index:
        return [_named(int(index))]
    if (replicas or 1) > len(npus):
        here = ", ".join(npu.name for npu in npus)
        reason = f"{replicas} servers want an NPU each, and there is only {here}"
        raise UsageError(variable("vllm_replicas"), reason, f"{variable('npus')} or {VISIBLE} may name more")
    return npus[:replicas]


def _on_cpu(number: int, count: int, wanted: Literal["cpu", "auto"]) -> Place:
    return Place("cpu" if count == 1 else f"cpu, {number + 1} of {count}", "", wanted)


def _visible() -> list[Place]:
    """The NPUs that CANN leaves to this process; empty where it is not told to leave out any."""
    told = [text.strip() for text in os.environ.get(VISIBLE, "").split(",") if text.strip()]
    return [Place(f"npu:{number}", text, "npu") for number, text in enumerate(told)]


def _given(settings: Settings, nodes: int) -> list[Place]:
    """Those that are for the kit to use, of all that this process sees."""
    # A container has NPUs to use them.
    found = range(nodes) if nodes and os.environ.get(IMAGE) else numbers(settings.npus)
    return [Place(f"npu:{number}", str(number), "npu") for number in found]


def _named(index: int) -> Place:
    """npu:N, of those that this process sees."""
    visible = _visible()
    if visible and index >= len(visible):
        reason = f"there is no npu:{index}, as {VISIBLE}={os.environ[VISIBLE]} leaves {len(visible)}, counted from 0"
        raise UsageError(variable("device"), reason)
    return visible[index] if visible else Place(f"npu:{index}", str(index), "npu")
