"""What torch.npu offers: the functions of torch_npu.npu that inference uses, for one simulated 910B4.

Random numbers come from the CPU's generator, which torch.manual_seed seeds, so the device draws what the CPU draws.
"""

from dataclasses import dataclass

import torch

from . import failures
from .counters import tally
from .memory import allocator

NAME = "Ascend910B4 (simulated)"

_initialised = False
settings: dict[str, object] = {}  # what set_compile_mode and set_option were told


@dataclass(frozen=True)
class DeviceProperties:
    """`total_memory` in bytes."""

    name: str
    total_memory: int


def init() -> None:
    """Take hold of the device, as its first use does. Raises RuntimeError where SIMULATED_NPU_FAILURE says so."""
    global _initialised
    if not _initialised:
        failures.at_first_use()
        _initialised = True


def is_initialized() -> bool:
    return _initialised


def is_available() -> bool:
    return device_count() > 0


def device_count() -> int:
    return 0 if failures.CHOSEN == "none-visible" else 1


def current_device() -> int:
    init()
    return 0


def set_device(device: int | str | torch.device) -> None:
    init()
    _index(device)


def get_device_name(device: int | str | torch.device | None = None) -> str:
    return get_device_properties(device).name


def get_device_properties(device: int | str | torch.device | None = None) -> DeviceProperties:
    init()
    _index(device)
    return DeviceProperties(NAME, allocator.capacity)


def synchronize(device: int | str | torch.device | None = None) -> None:
    """Count a wait; there is nothing to wait for, as every operator is done when it returns."""
    init()
    _index(device)
    tally.synchronise("synchronize")


def mem_get_info(device: int | str | torch.device | None = None) -> tuple[int, int]:
    """Free and total bytes."""
    init()
    _index(device)
    return allocator.capacity - allocator.reserved, allocator.capacity


def memory_allocated(device: int | str | torch.device | None = None) -> int:
    _index(device)
    return allocator.allocated


def max_memory_allocated(device: int | str | torch.device | None = None) -> int:
    _index(device)
    return allocator.most_allocated


def memory_reserved(device: int | str | torch.device | None = None) -> int:
    _index(device)
    return allocator.reserved


def max_memory_reserved(device: int | str | torch.device | None = None) -> int:
    _index(device)
    return allocator.most_reserved


def reset_peak_memory_stats(device: int | str | torch.device | None = None) -> None:
    _index(device)
    allocator.reset_peaks()


def empty_cache() -> None:
    allocator.empty_cache()


def set_compile_mode(jit_compile: bool = False) -> None:
    settings["jit_compile"] = jit_compile


def set_option(option: dict[str, object]) -> None:
    if not isinstance(option, dict):
        raise TypeError("npu option must be a dict")
    settings.update(option)


def is_bf16_supported() -> bool:
    return True


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


def manual_seed(seed: int) -> None:
    """Nothing to do: see the module's docstring."""


def manual_seed_all(seed: int) -> None:
    """Nothing to do: see the module's docstring."""


def get_rng_state(device: int | str | torch.device = "npu") -> torch.Tensor:
    _index(device)
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, device: int | str | torch.device = "npu") -> None:
    _index(device)
    torch.set_rng_state(state)


def _is_in_bad_fork() -> bool:
    return False


def is_npu(device: str | torch.device) -> bool:
    """Whether `device` is the simulated one. Raises RuntimeError for an npu that does not exist."""
    if torch.device(device).type != "npu":
        return False
    _index(device)
    return True


def _index(device: int | str | torch.device | None) -> None:
    index = device if isinstance(device, int) else torch.device(device or "npu").index
    if index:
        raise RuntimeError(f"The argument is invalid. Reason: Set device failed, invalid device={index}")
