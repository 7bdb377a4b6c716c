"""What a test asks of the simulated NPU beyond what torch_npu offers.

`counters()` and `measured()`: launches, synchronisations and bytes copied. `limit_memory(size)`: a smaller device.
`ENVIRONMENT`: the settings torch_npu saw when it was imported. `settings()`: what the running program told it.
"""

import os

from .counters import Counters, measured, tally
from .memory import limit_memory
from .npu import settings as _settings

__all__ = ["ENVIRONMENT", "Counters", "counters", "limit_memory", "measured", "settings"]

# Read by torch_npu, CANN or OpenMP when they load, and ignored when set later.
VARIABLES = (
    "TASK_QUEUE_ENABLE",
    "PYTORCH_NPU_ALLOC_CONF",
    "ACL_OP_COMPILER_CACHE_DIR",
    "CPU_AFFINITY_CONF",
    "OMP_NUM_THREADS",
    "ASCEND_RT_VISIBLE_DEVICES",
)

ENVIRONMENT = {name: os.environ[name] for name in VARIABLES if name in os.environ}


def counters() -> Counters:
    """Everything counted since torch_npu was imported."""
    return tally.read()


def settings() -> dict[str, object]:
    """What `set_compile_mode` (as `jit_compile`) and `set_option` were told."""
    return dict(_settings)
