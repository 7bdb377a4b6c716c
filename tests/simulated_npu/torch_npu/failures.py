"""The ways torch_npu fails on real hosts, for tests of device selection. SIMULATED_NPU_FAILURE names one:

- `cann`: CANN's set_env.sh was not sourced; `import torch_npu` cannot load libhccl.so.
- `driver`: the host's driver is not installed, or not mounted into the container; libascend_hal.so is missing.
- `cuda`: a CUDA build of torch lies beside torch_npu, which refuses to be the second accelerator.
- `busy`: the import works and a device is seen, but the first use finds it held by another process or container.
- `none-visible`: the import works and no device is seen.

The variable is read once, at import. Texts follow public reports; process ids and dates are this process's own.
"""

import os
import time

VARIABLE = "SIMULATED_NPU_FAILURE"
NAMES = ("cann", "driver", "cuda", "busy", "none-visible")


def chosen() -> str | None:
    """The failure to act out, if any. Raises ValueError for a name that is not in NAMES."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if name not in NAMES:
        raise ValueError(f"{VARIABLE}={name}: expected one of {', '.join(NAMES)}")
    return name


CHOSEN = chosen()


def at_import() -> None:
    """Raise what `import torch_npu` raises under the chosen failure."""
    if CHOSEN == "cann":
        # Ascend/pytorch, torch_npu/__init__.py: the loader's message with advice and an error code appended.
        # Seen by users in https://github.com/LinZhekai/X-Oscar/issues/4.
        raise ImportError(
            "libhccl.so: cannot open shared object file: No such file or directory. Please check that the cann "
            "package is installed. Please run 'source set_env.sh' in the CANN installation path."
            + _stamp("ERR00008 PTA resource not found")
        )
    if CHOSEN == "driver":
        # The loader's own message. https://github.com/huggingface/accelerate/issues/3754: a container without a driver.
        raise ImportError("libascend_hal.so: cannot open shared object file: No such file or directory")
    if CHOSEN == "cuda":
        # Ascend/pytorch, torch_npu/__init__.py, where torch._C._get_accelerator() is something else than the CPU.
        raise RuntimeError(
            "Two accelerators cannot be used at the same time in PyTorch: npu and cuda. You can install the cpu "
            "version of PyTorch to use your npu device, or use the cuda device with "
            "'export TORCH_DEVICE_BACKEND_AUTOLOAD=0'." + _stamp("ERR00007 PTA feature not supported")
        )


def at_first_use() -> None:
    """Raise what the first use of the device raises under the chosen failure."""
    if CHOSEN == "busy":
        # torch_npu's form as in https://github.com/vllm-project/vllm-ascend/issues/4284 (there SetDevice and 507033,
        # which has many causes); the code 507899 from aclInit and EL0005 are what a held device gives, as in
        # https://github.com/hw-native-sys/PTOAS/pull/765.
        raise RuntimeError(
            "Initialize:build/CMakeFiles/torch_npu.dir/compiler_depend.ts:146 NPU function error: aclInit, error code "
            "is 507899" + _stamp("ERR00100 PTA call acl api failed") + "\n"
            "[Error]: An internal error occurs in the Driver module. \n"
            "        Rectify the fault based on the error information in the ascend log.\n"
            f"EL0005: [PID: {os.getpid()}] The resources are busy.\n"
            "        Possible Cause: 1. The resources have been occupied. 2. The device is being reset. "
            "3. Software is not ready.\n"
            "        Solution: 1. Close applications not in use. 2. Wait for a while and try again."
        )
    if CHOSEN == "none-visible":
        # https://github.com/gpustack/gpustack/issues/3352: ASCEND_RT_VISIBLE_DEVICES names a device that is not there.
        raise RuntimeError(
            "init:build/CMakeFiles/torch_npu.dir/compiler_depend.ts:292 NPU function error: "
            "aclrtGetDeviceCount(&device_count), error code is 207004"
            + _stamp("ERR00100 PTA call acl api failed")
            + "\n[Error]: The device is unavailable.\n        Check whether the device is running properly."
        )


def _stamp(error: str) -> str:
    now = time.strftime("%Y-%m-%d-%H:%M:%S")
    return f"\n[ERROR] {now} (PID:{os.getpid()}, Device:-1, RankID:-1) {error}"
