"""What the simulated device counts: launches, waits, bytes."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from torch import nn

from simulated_npu import on_npu, stand_in

# What is done to a float32 tensor of shape (2, 3) → launches, synchronisations, bytes to the device, bytes to the host.
COSTS: dict[str, tuple[Callable[[Any], object], tuple[int, int, int, int]]] = {
    "add": (lambda tensor: tensor + 1, (1, 0, 0, 0)),
    "views": (lambda tensor: tensor[1:].t().unsqueeze(0).detach().expand(2, 3, 1), (0, 0, 0, 0)),
    "allocation": (torch.empty_like, (0, 0, 0, 0)),
    "fill": (torch.zeros_like, (1, 0, 0, 0)),
    "zeros": (lambda tensor: torch.zeros(2, device=tensor.device), (1, 0, 0, 0)),
    "attention": (lambda tensor: nn.functional.scaled_dot_product_attention(tensor, tensor, tensor), (1, 0, 0, 0)),
    "matmul": (lambda tensor: tensor.expand(4, 2, 3) @ tensor.t(), (1, 0, 0, 0)),
    "linear": (lambda tensor: nn.functional.linear(tensor, tensor), (1, 0, 0, 0)),
    "cast": (lambda tensor: tensor.bfloat16(), (1, 0, 0, 0)),
    "contiguous already": (lambda tensor: tensor.contiguous(), (0, 0, 0, 0)),
    "contiguous now": (lambda tensor: tensor.t().contiguous(), (1, 0, 0, 0)),
    "item": (lambda tensor: tensor[0, 0].item(), (0, 1, 0, 4)),
    "bool": (lambda tensor: bool(tensor[0, 0]), (0, 1, 0, 4)),
    "int": (lambda tensor: int(tensor[0, 0]), (0, 1, 0, 4)),
    "tolist": (lambda tensor: tensor.tolist(), (0, 1, 0, 24)),
    "cpu": (lambda tensor: tensor.cpu(), (0, 1, 0, 24)),
    "cpu, cast": (lambda tensor: tensor.to("cpu", torch.float64), (1, 1, 0, 48)),
    "cpu, gathered": (lambda tensor: tensor[:, :2].cpu(), (1, 1, 0, 16)),
    "cpu, without waiting": (lambda tensor: tensor.to("cpu", non_blocking=True), (0, 0, 0, 24)),
    "copy_ to host": (lambda tensor: torch.empty(2, 3).copy_(tensor), (0, 1, 0, 24)),
    "copy_ to device": (lambda tensor: tensor.copy_(torch.ones(2, 3)), (0, 0, 24, 0)),
    "copy_ to a strided part": (lambda tensor: tensor[:, :2].copy_(torch.ones(2, 2)), (1, 0, 16, 0)),
    "copy_ within the device": (lambda tensor: tensor.copy_(tensor.flip(0)), (2, 0, 0, 0)),
    "to device": (lambda tensor: torch.ones(5, dtype=torch.float64).to(tensor.device), (0, 0, 40, 0)),
    "to device, cast on the host": (lambda tensor: torch.ones(5).to(tensor.device, torch.bfloat16), (0, 0, 10, 0)),
    "tensor": (lambda tensor: torch.tensor([1, 2, 3], device=tensor.device), (0, 0, 24, 0)),
    "nonzero": (lambda tensor: tensor.nonzero(), (1, 1, 0, 0)),
    "where": (lambda tensor: torch.where(tensor), (1, 1, 0, 0)),
    "unique": (lambda tensor: tensor.unique(), (1, 1, 0, 0)),
    "masked_select": (lambda tensor: tensor.masked_select(tensor > 0), (2, 1, 0, 0)),
    "boolean index": (lambda tensor: tensor[tensor > 0], (2, 1, 0, 0)),
    "index": (lambda tensor: tensor[tensor.long()[0, :1]], (2, 0, 0, 0)),
    "masked_scatter": (lambda tensor: tensor.masked_scatter(tensor > 0, tensor), (2, 0, 0, 0)),
    "equal": (lambda tensor: torch.equal(tensor, tensor), (1, 1, 0, 0)),
    "if": (lambda tensor: 1 if (tensor > 0).all() else 0, (2, 1, 0, 1)),
    "synchronize": (lambda tensor: stand_in().npu.synchronize(tensor.device), (0, 1, 0, 0)),
}


@on_npu
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", COSTS)
def test_costs(name: str, inference: bool) -> None:
    simulation = stand_in().simulation
    tensor = torch.ones(2, 3, device="npu:0")
    act, expected = COSTS[name]
    with torch.inference_mode(inference), simulation.measured() as spent:
        act(tensor)
    cost = spent()
    assert (cost.launches, cost.synchronisations, cost.bytes_to_device, cost.bytes_to_host) == expected


@on_npu
def test_counters_say_which_operator() -> None:
    simulation = stand_in().simulation
    tensor = torch.ones(2, device="npu:0")
    before = simulation.counters()
    with simulation.measured() as spent:
        (tensor + tensor + 1).sum().item()
        assert spent().launches == 3
    tensor.tolist()
    assert dict(spent().launched) == {"add.Tensor": 2, "sum": 1}
    assert dict(spent().synchronised) == {"_local_scalar_dense": 1}
    assert (simulation.counters() - before).synchronisations == 2


@on_npu
def test_threads_are_counted_together() -> None:
    simulation = stand_in().simulation

    def work() -> None:
        for _ in range(50):
            torch.ones(2, device="npu:0").sum().item()

    with simulation.measured() as spent:
        threads = [Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (spent().launches, spent().synchronisations) == (400, 200)
