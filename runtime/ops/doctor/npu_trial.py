"""The first use of an NPU, step by step, a line of JSON each: python -m runtime.ops.doctor.npu_trial npu bfloat16 '{}'

A process of its own, because native code that fails may end it, and because a driver may keep it waiting for ever.
"""

import json
import sys
from typing import Any

from env.errors import KitError
from runtime.model.device import open_device

SIZE = 256  # rows and columns
# Largest difference from the CPU's product, as a part of it (Frobenius norm). What the formats' mantissas of 8, 11 and
# 24 bits give for sums of 256, doubled and more; an NPU may calculate float32 with fewer bits.
TOLERANCES = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-3}


def main(wanted: str, dtype: str, variables: str) -> None:
    """Open a device, then multiply two matrices on it and on the CPU."""
    try:
        device = open_device(wanted, exports=json.loads(variables))
    except KitError as error:
        _tell(reason=error.reason, advice=error.advice)
        return
    import torch
    import torch_npu

    _tell(device=device.name, description=device.description(), torch_npu=str(torch_npu.__version__))
    kind = getattr(torch, dtype)
    torch.manual_seed(0)
    left, right = (torch.randn(SIZE, SIZE).to(kind) for _ in range(2))
    product = (left.to(device.name) @ right.to(device.name)).cpu().float()
    expected = left.float() @ right.float()
    distance = float((product - expected).norm() / expected.norm())
    _tell(error=distance, tolerance=TOLERANCES[dtype], dtype=dtype)


def _tell(**found: Any) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
