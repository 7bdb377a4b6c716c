"""The tensor of the simulated device: metadata that says npu:0, over a CPU tensor that holds the data."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


class NpuTensor(torch.Tensor):
    """A tensor on npu:0. `host` is the CPU tensor of the same shape, strides and dtype that stands for device memory.

    Whatever PyTorch dispatches for it goes to `operators.run`. The methods below are those that PyTorch answers in
    C++ or Python without dispatching, and refuses or answers wrongly for a subclass.
    """

    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> "NpuTensor":
        with torch.inference_mode(host.is_inference()):  # a view taken in inference mode is what its base is
            tensor: NpuTensor = torch.Tensor._make_wrapper_subclass(
                cls,
                host.size(),
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                device=torch.device("npu:0"),
            )
        tensor.host = host
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # PyTorch declares it as a function, and asks for a classmethod
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from . import operators  # which needs this class

        return operators.run(func, *args, **(kwargs or {}))

    def point_to(self, host: torch.Tensor) -> None:
        """Take on another CPU tensor with its metadata, as `resize_`, `out=` and `.data = …` do."""
        torch._C.TensorBase.data.__set__(self, NpuTensor(host))  # type: ignore[attr-defined]
        self.host = host

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, new: torch.Tensor) -> None:
        if not isinstance(new, NpuTensor):
            raise RuntimeError(f"incompatible tensor type: a tensor on npu:0 cannot take data on {new.device}")
        self.point_to(new.host.detach())  # the same memory, metadata of its own

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """With its counterpart below it makes `module.to` swap parameters in place instead of replacing them, so that
        tied weights stay tied, as with torch_npu (which allows `.data = …` across devices, OverrideOperators.h)."""
        return ["host"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, torch.Tensor], context: None, size: Any, stride: Any) -> "NpuTensor":
        return NpuTensor(parts["host"])

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.host.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            "can't convert npu:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, dtype: Any = None) -> np.ndarray[Any, Any]:
        return self.numpy()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{repr(self.host)[:-1]}, device='npu:0')"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)


def nested(function: Callable[[Any], Any], value: Any) -> Any:
    """`value` with `function` applied to it, or to the items of the lists and tuples in it."""
    if isinstance(value, (list, tuple)):
        return type(value)([nested(function, item) for item in value])
    return function(value)
