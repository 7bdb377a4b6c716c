"""Tensors on npu:0 behave as on a device, with the CPU's results, and leave CPU tensors alone."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from simulated_npu import on_npu, stand_in


@on_npu
@pytest.mark.parametrize("inference", [False, True])
def test_factories(inference: bool) -> None:
    with torch.inference_mode(inference):
        made = {
            "zeros": (torch.zeros(2, 3, device="npu:0"), torch.zeros(2, 3)),
            "ones": (torch.ones(2, device="npu"), torch.ones(2)),
            "full": (torch.full((2,), 7, device="npu:0"), torch.full((2,), 7)),
            "arange": (torch.arange(1, 9, 3, device="npu:0"), torch.arange(1, 9, 3)),
            "tensor": (torch.tensor([[1.5], [2]], device="npu:0"), torch.tensor([[1.5], [2]])),
            "scalar": (torch.tensor(True, device="npu:0"), torch.tensor(True)),
            "zeros_like": (torch.zeros_like(torch.ones(2), device="npu:0"), torch.zeros(2)),
            "moved": (torch.tensor([1, 2]).to("npu:0"), torch.tensor([1, 2])),
            "moved without index": (torch.tensor([1, 2]).to("npu"), torch.tensor([1, 2])),
        }
        for name, (tensor, expected) in made.items():
            assert tensor.device == torch.device("npu:0"), name
            assert tensor.cpu().device.type == "cpu", name
            assert tensor.dtype == expected.dtype, name
            assert torch.equal(tensor.cpu(), expected), name
        assert torch.empty(2, 5, dtype=torch.int8, device="npu:0").shape == (2, 5)


@on_npu
@pytest.mark.parametrize("inference", [False, True])
def test_values_reach_python(inference: bool) -> None:
    tensor = torch.tensor([[1.0, 2.5]], device="npu:0")
    with torch.inference_mode(inference):
        assert tensor.tolist() == [[1.0, 2.5]]
        assert tensor[0, 1].item() == float(tensor[0, 1]) == 2.5
        assert int(tensor[0, 1]) == 2
        assert bool(tensor[0, 0] > 0)
        assert ["a", "b", "c"][tensor[0, 1].long()] == "c"
        assert f"{tensor[0, 1]:.2f}" == "2.50"
        assert repr(tensor) == "tensor([[1.0000, 2.5000]], device='npu:0')"
        assert [row.tolist() for row in tensor] == [[1.0, 2.5]]
        assert torch.tensor([tensor[0, 0], 3]).tolist() == [1, 3]
        assert tensor.numpy(force=True).tolist() == [[1.0, 2.5]]


@on_npu
def test_numpy_wants_the_host() -> None:
    tensor = torch.ones(2, device="npu:0")
    with pytest.raises(TypeError, match=r"can't convert npu:0 device type tensor to numpy. Use Tensor.cpu\(\)"):
        tensor.numpy()
    with pytest.raises(TypeError, match="can't convert npu:0"):
        np.asarray(tensor)


@on_npu
@pytest.mark.parametrize("inference", [False, True])
def test_views_share_memory(inference: bool) -> None:
    tensor = torch.zeros(2, 3, device="npu:0")
    with torch.inference_mode(inference):
        tensor.t()[1].fill_(4)
        tensor.view(-1)[5:] += 1
        assert tensor.tolist() == [[0, 4, 0], [0, 4, 1]]
        assert tensor.t().stride() == (1, 3)
        assert tensor.data_ptr() == tensor.view(6).data_ptr()


@on_npu
def test_shapes_change_in_place() -> None:
    tensor = torch.arange(4.0, device="npu:0")
    assert tensor.unsqueeze_(0) is tensor
    assert tensor.shape == (1, 4)
    assert (tensor + 1).tolist() == [[1, 2, 3, 4]]
    out = torch.empty(0, device="npu:0")
    torch.add(tensor, tensor, out=out.resize_(1, 4))
    assert out.tolist() == [[0, 2, 4, 6]]
    other = torch.ones(2, device="npu:0")
    tensor.data = other
    tensor.unsqueeze_(0).add_(1)
    assert tensor.tolist() == [[2, 2]]
    assert other.tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        tensor.data = torch.ones(2)


def masked_assignment(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor[tensor > 3] = 0
    return tensor


def attention(tensor: torch.Tensor) -> torch.Tensor:
    heads = tensor.view(1, 2, 3, 4)
    mask = torch.ones(3, 3, dtype=torch.bool, device=tensor.device).tril()
    return nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)


CALCULATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "index": lambda tensor: tensor[torch.tensor([1, 0], device=tensor.device), 2:],
    "boolean index": lambda tensor: tensor[tensor > 5],
    "masked assignment": masked_assignment,
    "masked_scatter": lambda tensor: tensor.masked_scatter(tensor > 5, tensor.flip(0)),
    "nonzero": lambda tensor: tensor.nonzero(),
    "cat": lambda tensor: torch.cat([tensor, tensor * 2], dim=-1),
    "attention": attention,
    "matmul": lambda tensor: tensor @ tensor.t(),
    "layer_norm": lambda tensor: nn.functional.layer_norm(tensor, tensor.shape[-1:]),
    "conv": lambda tensor: nn.functional.conv1d(tensor[None], tensor[:1, :, None]),
    "argmax": lambda tensor: tensor.argmax(-1),
    "topk": lambda tensor: torch.topk(tensor, 2).values,
    "vmap": lambda tensor: torch.vmap(torch.sin)(tensor),
    "random": lambda tensor: torch.rand(3, generator=None, device=tensor.device),
}


@on_npu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CALCULATIONS)
def test_results_are_the_cpus_to_the_bit(name: str, dtype: torch.dtype) -> None:
    host = torch.linspace(0, 10, 24, dtype=dtype).view(4, 6).t().contiguous()[:4]
    host = host if name == "conv" else host.reshape(2, -1) if name != "attention" else host.repeat(2, 2)[:6, :4]
    results = []
    for tensor in (host, host.to("npu:0")):
        torch.manual_seed(3)
        results.append(CALCULATIONS[name](tensor))
    assert results[1].device.type == "npu"
    assert torch.equal(results[0], results[1].cpu())


@on_npu
def test_autocast_can_be_switched_off() -> None:
    tensor = torch.ones(2, 2, device="npu:0")
    with torch.autocast(device_type=tensor.device.type, enabled=False):
        assert (tensor.float() @ tensor).dtype == torch.float32


@on_npu
def test_modules_move_with_their_ties() -> None:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    module[1].weight = module[0].weight
    with torch.no_grad():
        expected = module(torch.tensor([2, 4]))
    moved = module.to("npu:0")
    assert moved[1].weight is moved[0].weight
    assert isinstance(moved[1].weight, nn.Parameter)
    with torch.no_grad():
        assert torch.equal(moved(torch.tensor([2, 4], device="npu:0")).cpu(), expected)
    twin = copy.deepcopy(moved)
    assert twin[1].weight is twin[0].weight is not moved[0].weight
    moved.to(torch.bfloat16)
    assert moved[0].weight.dtype == torch.bfloat16
    assert moved(torch.tensor([2], device="npu:0")).dtype == torch.bfloat16
    assert moved.to("cpu")[0].weight.device.type == "cpu"


@on_npu
def test_safetensors_load_onto_the_device(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({"weight": torch.arange(6.0).view(2, 3)}, tmp_path / "model.safetensors")
    weight = load_file(tmp_path / "model.safetensors", device="npu:0")["weight"]
    assert weight.device == torch.device("npu:0")
    assert weight.tolist() == [[0, 1, 2], [3, 4, 5]]


@on_npu
def test_cpu_tensors_are_left_alone() -> None:
    with stand_in().simulation.measured() as spent:
        tensor = torch.ones(3)
        assert type(tensor + tensor[tensor > 0]) is torch.Tensor
        assert tensor.tolist() == [1, 1, 1]
        assert nn.Linear(3, 3)(tensor).device.type == "cpu"
    assert spent().launches == spent().synchronisations == 0
    assert torch.get_default_device().type == "cpu"
