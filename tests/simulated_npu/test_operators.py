"""Tensors of host and device do not meet in one operator, but where the device allows it."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from simulated_npu import on_npu, stand_in

MIXTURES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": lambda host, device: device + host,
    "add to host": lambda host, device: host + device,
    "add_": lambda host, device: device.add_(host),
    "add_ to host": lambda host, device: host.add_(device),
    "cat": lambda host, device: torch.cat([device, host]),
    "matmul": lambda host, device: device @ host,
    "linear": lambda host, device: nn.functional.linear(device, host),
    "where": lambda host, device: torch.where(device > 0, device, host),
    "index of host": lambda host, device: host[device.long()],
    "mask": lambda host, device: device.masked_fill(host > 0, 1),
}


@on_npu
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", MIXTURES)
def test_mixing_host_and_device_raises(name: str, inference: bool) -> None:
    message = "Expected all tensors to be on the same device, but found at least two devices, npu:0 and cpu!"
    with torch.inference_mode(inference), pytest.raises(RuntimeError, match=message):
        MIXTURES[name](torch.ones(2, 2), torch.ones(2, 2, device="npu:0"))


@on_npu
def test_single_host_values_are_admitted() -> None:
    tensor = torch.ones(2, device="npu:0")
    assert (tensor * torch.tensor(3.0) + 1).tolist() == [4, 4]
    assert torch.where(tensor > 0, tensor, torch.tensor(0.0)).tolist() == [1, 1]


@on_npu
def test_host_indices_are_copied_over() -> None:
    simulation = stand_in().simulation
    tensor = torch.arange(3, device="npu:0")
    with simulation.measured() as spent:
        assert tensor[torch.tensor([2, 0])].device.type == "npu"
    assert (spent().copies_to_device, spent().bytes_to_device, spent().synchronisations) == (1, 16, 0)


@on_npu
def test_unknown_device_is_refused() -> None:
    with pytest.raises(RuntimeError, match="invalid device=1"):
        torch.zeros(2, device="npu:1")
    with pytest.raises(RuntimeError, match="invalid device=3"):
        stand_in().npu.set_device(3)
