"""A stand-in for torch_npu that gives a CPU the device npu:0. It stands for silicon in tests and is no part of the kit.

Real: PyTorch itself sees a device named npu, tensors on it refuse to meet tensors on the CPU, and results are the
CPU's to the bit. Counted: kernels launched, waits, bytes copied, memory. Not real: speed, numerics of the NPU,
streams, events, graphs, generators, pinned memory, torch.compile, fused operators of torch_npu, gradients through
matmul and attention. `simulation` is what tests ask; the remaining modules say what they simulate and how.

Importing this package names PyTorch's spare backend, which a process can do once. PyTorch's CPU tensors stay as they
are, but transformers, accelerate and the kit then know of an NPU; so tests import it in a process of its own: see
`simulated_npu.on_npu`.
"""

from . import failures

failures.at_import()

from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # noqa: E402

from . import npu, operators, simulation  # noqa: E402

__version__ = "2.9.0+simulated"
__all__ = ["__version__", "npu", "npu_fusion_attention", "simulation"]

_setup_privateuseone_for_python_backend("npu", backend_module=npu)
_registrations = operators.register()


def npu_fusion_attention(*args: object, **kwargs: object) -> None:
    """transformers imports this name where it finds torch_npu. Attention on the simulated NPU goes through sdpa."""
    raise NotImplementedError("the simulated NPU has no npu_fusion_attention: load the model with sdpa attention")
