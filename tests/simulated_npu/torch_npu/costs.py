"""How the simulated device counts what it is asked to do.

- An operator launches a kernel unless it is a view, only allocates, only changes metadata, or reads one element.
- A copy between host and device moves bytes; it launches a kernel only where the device must cast or gather first.
- The host waits for the device where PyTorch tags a result as depending on data (`item`, `equal`, `nonzero`, `unique`,
  `masked_select`), where a tensor is indexed with booleans, and where it copies to the host without `non_blocking`.

One operator counts as one launch, whatever number of kernels the real device needs for it. Composite operators arrive
in the parts that PyTorch makes of them. Copies to the device are counted apart from waits: whether they stall the host
depends on pinned memory, which is not simulated.
"""

from functools import cache
from typing import Any

import torch
from torch._ops import OpOverload

from .counters import tally

aten = torch.ops.aten

ALLOCATIONS = {
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}
METADATA = {aten._unsafe_view.default, aten.is_pinned.default, aten.is_same_size.default}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
MASKS = (torch.bool, torch.uint8)


def charge(operator: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Count an operator on the device, given the CPU tensors behind its arguments."""
    name = _name(operator)
    if operator is aten._local_scalar_dense.default:
        tally.copy_to_host(args[0].element_size())
    elif _launches(operator):
        tally.launch(name)
    if _synchronises(operator, args, kwargs):
        tally.synchronise(name)


def charge_copy_to_device(destination: torch.Tensor, source: torch.Tensor) -> None:
    """Count a copy host → device. The host casts; the device scatters where the layouts differ."""
    tally.copy_to_device(destination.numel() * destination.element_size())
    if not destination.is_contiguous() and destination.stride() != source.stride():
        tally.launch("copy_")


def charge_copy_to_host(source: torch.Tensor, dtype: torch.dtype, *, non_blocking: bool) -> None:
    """Count a copy device → host. The device casts and gathers; the host waits, unless told not to."""
    tally.copy_to_host(source.numel() * dtype.itemsize)
    if source.dtype != dtype or not source.is_contiguous():
        tally.launch("copy_")
    if not non_blocking:
        tally.synchronise("copy_")


@cache
def _name(operator: OpOverload) -> str:
    return str(operator).removeprefix("aten.").removesuffix(".default")


@cache
def _launches(operator: OpOverload) -> bool:
    free = operator.is_view or torch.Tag.inplace_view in operator.tags
    return not free and operator not in ALLOCATIONS and operator not in METADATA


@cache
def _depends_on_data(operator: OpOverload) -> bool:
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.intersection(operator.tags))


def _synchronises(operator: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if operator in INDEXING:
        return any(index is not None and index.dtype in MASKS for index in args[1])
    if operator is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    return _depends_on_data(operator)
