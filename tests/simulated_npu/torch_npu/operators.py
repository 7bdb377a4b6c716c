"""What happens to each operator that PyTorch dispatches to npu:0: it is checked, counted and run on the CPU."""

from functools import cache, partial
from typing import Any

import torch
from torch._ops import OpOverload

from . import npu
from .costs import ALLOCATIONS, INDEXING, aten, charge, charge_copy_to_device, charge_copy_to_host
from .memory import allocator
from .tensor import NpuTensor, nested

# What torch.tensor calls past the wrapper, where PyTorch's fallback does not find its function for wrapped arguments.
PAST_WRAPPER = (aten.copy_.default, aten._local_scalar_dense.default)

# Composite operators that torch_npu implements whole: Ascend/op-plugin, op_plugin/config/op_plugin_functions.yaml.
WHOLE = (aten.matmul.default, aten.scaled_dot_product_attention.default)


def register() -> list[torch.library.Library]:
    """Make `run` the implementation of every operator on npu:0. It lasts as long as the result is kept."""
    library: Any = torch.library.Library  # untyped
    fallback = library("_", "IMPL")
    fallback.fallback(run, "PrivateUse1")
    named = library("aten", "IMPL")
    for operator in (*WHOLE, *PAST_WRAPPER):
        named.impl(operator, partial(run, operator), "PrivateUse1")
    return [fallback, named]


def run(operator: OpOverload, *args: Any, **kwargs: Any) -> Any:
    """Run `operator` on the CPU tensors behind its arguments; what belongs to the device is wrapped again.

    Raises RuntimeError where tensors of host and device meet, torch.OutOfMemoryError where a result does not fit.
    """
    npu.init()
    if _is_composite(operator):  # inference mode hands these over whole
        return operator.decompose(*args, **kwargs)
    wrappers: dict[int, NpuTensor] = {}  # by id of the CPU tensor, to give in-place results back as they came
    strangers: list[torch.Tensor] = []

    def unwrap(value: Any) -> Any:
        if isinstance(value, NpuTensor):
            wrappers[id(value.host)] = value
            return value.host
        if isinstance(value, torch.Tensor) and value.dim() > 0:  # one element from the host is allowed anywhere
            strangers.append(value)
        return value

    host_args = nested(unwrap, args)
    host_kwargs = {name: nested(unwrap, value) for name, value in kwargs.items()}
    to_host = False
    if (device := kwargs.get("device")) is not None:
        to_host = not npu.is_npu(device)
        host_kwargs["device"] = "cpu" if not to_host else device

    if operator is aten.copy_.default:
        to_host = not isinstance(args[0], NpuTensor)
        _charge_copy(args, host_args, kwargs)
    elif operator is aten._to_copy.default and to_host:
        dtype = kwargs.get("dtype") or host_args[0].dtype
        charge_copy_to_host(host_args[0], dtype, non_blocking=kwargs.get("non_blocking", False))
    elif not to_host:
        if wrappers and strangers:
            _admit(operator, args, strangers)
        charge(operator, host_args, host_kwargs)
        if operator in ALLOCATIONS:
            outline = operator(*host_args, **{**host_kwargs, "device": "meta"})
            allocator.check(outline.untyped_storage().nbytes())

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        wrapper = wrappers.get(id(value))
        if wrapper is None and to_host:
            return value
        if wrapper is None:
            allocator.hold(value)
            return NpuTensor(value)
        if wrapper.shape != value.shape or wrapper.stride() != value.stride():
            allocator.hold(value)
            wrapper.point_to(value)
        return wrapper

    return nested(wrap, operator(*host_args, **host_kwargs))


@cache
def _is_composite(operator: Any) -> bool:
    key = "CompositeImplicitAutograd"
    return operator not in WHOLE and torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key)


def _charge_copy(args: tuple[Any, ...], host_args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    destination, source = host_args[:2]
    if not isinstance(args[0], NpuTensor):
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        charge_copy_to_host(source, destination.dtype, non_blocking=non_blocking)
    elif not isinstance(args[1], NpuTensor):
        charge_copy_to_device(destination, source)
    else:
        charge(aten.copy_.default, host_args, kwargs)


def _admit(operator: OpOverload, args: tuple[Any, ...], strangers: list[torch.Tensor]) -> None:
    """Let host tensors index device tensors, which copies them over; refuse any other mixture.

    The words are PyTorch's own; many operators of torch_npu say "Expected all tensors to be on the same device.
    Expected NPU tensor, please check whether the input tensor device is correct." (its test/npu/test_fault_mode.py).
    """
    if operator in INDEXING:
        indices = {id(index) for index in args[1]}
        if indices.issuperset(map(id, strangers)):
            for index in strangers:
                charge_copy_to_device(index, index)
            return
    raise RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, npu:0 and "
        f"{strangers[0].device}! (in {operator})"
    )
