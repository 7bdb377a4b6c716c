"""The simulated device's memory: figures, cache, and the error when it is full."""

import re

import pytest
import torch

from simulated_npu import on_npu, stand_in

MIB = 2**20


@on_npu
def test_memory_follows_storages() -> None:
    npu = stand_in().npu
    npu.empty_cache()
    npu.reset_peak_memory_stats()
    before = npu.memory_allocated()
    tensor = torch.zeros(MIB, device="npu:0")
    taken = npu.memory_allocated() - before
    assert 4 * MIB <= taken <= 4 * MIB + 1024
    view = tensor[5:].view(-1)
    tensor += 1
    assert npu.memory_allocated() - before == taken
    del tensor
    assert npu.memory_allocated() - before == taken
    del view
    assert npu.memory_allocated() == before
    assert npu.max_memory_allocated() == before + taken


@on_npu
def test_freed_memory_stays_reserved_until_the_cache_is_emptied() -> None:
    npu = stand_in().npu
    npu.empty_cache()
    before = npu.memory_allocated()
    assert npu.memory_reserved() == before
    tensor = torch.zeros(MIB, device="npu:0")
    free, total = npu.mem_get_info()
    assert total - free == npu.memory_reserved() == npu.memory_allocated()
    del tensor
    assert npu.memory_reserved() >= before + 4 * MIB
    assert npu.mem_get_info() == (free, total)
    npu.empty_cache()
    assert npu.memory_reserved() == before
    assert npu.max_memory_reserved() >= before + 4 * MIB
    npu.reset_peak_memory_stats()
    assert npu.max_memory_reserved() == npu.max_memory_allocated() == before


@on_npu
def test_memory_grows_with_a_resized_tensor() -> None:
    npu = stand_in().npu
    tensor = torch.zeros(2, device="npu:0")
    before = npu.memory_allocated()
    tensor.resize_(MIB)
    assert npu.memory_allocated() >= before + 4 * MIB - 512


@on_npu
def test_out_of_memory_is_torch_npus() -> None:
    npu = stand_in().npu
    simulation = stand_in().simulation
    allocated = npu.memory_allocated()
    kept = torch.zeros(MIB, device="npu:0")
    with simulation.limit_memory(allocated + 10 * MIB):
        with pytest.raises(torch.OutOfMemoryError) as raised:
            torch.cat([kept, kept])
        assert isinstance(raised.value, RuntimeError)
        assert re.fullmatch(
            r"NPU out of memory\. Tried to allocate 8\.00 MiB \(NPU 0; 10\.\d\d MiB total capacity; 4\.\d\d MiB "
            r"already allocated; 4\.\d\d MiB current active; 6\.00 MiB free; 4\.\d\d MiB reserved in total by "
            r"PyTorch\)\."
            r"If reserved memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation\.",
            str(raised.value),
        )
        assert npu.get_device_properties(0).total_memory == allocated + 10 * MIB
        assert torch.cat([kept[: MIB // 2], kept[: MIB // 2]]).shape == (MIB,)
        with pytest.raises(RuntimeError, match="NPU out of memory"):
            torch.ones(2 * MIB).to("npu:0")
    assert torch.cat([kept, kept]).shape == (2 * MIB,)
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 256.00 GiB \(NPU 0; 29.50 GiB total"):
        torch.zeros(2**36, device="npu:0")


@on_npu
def test_cached_memory_is_no_obstacle() -> None:
    npu = stand_in().npu
    simulation = stand_in().simulation
    with simulation.limit_memory(npu.memory_allocated() + 10 * MIB):
        first = torch.zeros(2 * MIB, device="npu:0")
        del first
        assert torch.zeros(2 * MIB, device="npu:0").shape == (2 * MIB,)
