"""The simulated device's memory: what is allocated, what the allocator keeps, and where it ends.

Real: sizes are rounded as torch_npu's caching allocator rounds them, views share their storage's bytes, freed bytes
stay reserved until `empty_cache` or until they are wanted, and what does not fit raises torch_npu's own error.
Not real: there is no fragmentation, freed bytes serve any later request, and kernels need no workspace. The host does
the arithmetic first, so results larger than the host's memory fail there; plain allocations are checked beforehand.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# What a 910B4 of 32768 MB offers: "29.50 GiB total capacity", https://github.com/vllm-project/vllm-ascend/issues/3308.
CAPACITY = 30_208 * 2**20

BLOCK = 512  # bytes; kMinBlockSize of NPUCachingAllocator.cpp, whose round_size adds 32 bytes first


class Allocator:
    """Bytes held by live storages. Safe to use from several threads and from finalizers."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may run inside any of these methods
        self._sizes: dict[int, int] = {}  # storage → bytes allocated for it
        self.capacity = CAPACITY
        self.allocated = self.reserved = self.most_allocated = self.most_reserved = 0

    def check(self, size: int) -> None:
        """Raise torch.OutOfMemoryError where `size` more bytes do not fit."""
        with self._lock:
            needed = _rounded(size)
            if self.allocated + needed > self.capacity:
                self.empty_cache()  # torch_npu too gives its cache back before it gives up
                raise torch.OutOfMemoryError(self._explain(needed))

    def hold(self, tensor: torch.Tensor) -> None:
        """Account for the storage behind a CPU tensor that stands for device memory, until that storage dies."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        with self._lock:
            needed, held = _rounded(storage.nbytes()), self._sizes.get(key)
            if held == needed:
                return
            self.check(storage.nbytes() - (held or 0))
            if held is None:
                weakref.finalize(storage, self._release, key).atexit = False
            self._sizes[key] = needed
            self._add(needed - (held or 0))

    def empty_cache(self) -> None:
        with self._lock:
            self.reserved = self.allocated

    def reset_peaks(self) -> None:
        with self._lock:
            self.most_allocated, self.most_reserved = self.allocated, self.reserved

    def _release(self, key: int) -> None:
        with self._lock:
            self._add(-self._sizes.pop(key))

    def _add(self, size: int) -> None:
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated)
        self.most_allocated = max(self.most_allocated, self.allocated)
        self.most_reserved = max(self.most_reserved, self.reserved)

    def _explain(self, needed: int) -> str:
        """torch_npu's message, to the letter.

        Found in Ascend/pytorch, torch_npu/csrc/core/npu/NPUCachingAllocator.cpp (commit 165f15da):
        TORCH_CHECK_WITH(OutOfMemoryError, …), which Python sees as torch.OutOfMemoryError, a RuntimeError; the test
        test_aclrtMallocAlign32 of test/npu/test_fault_mode.py there expects that class. Older releases raised a plain
        RuntimeError with the same words (https://github.com/vllm-project/vllm-omni/issues/1199, torch 2.8), so whoever
        catches the error should take both. Without a blank after the closing bracket, as in
        https://github.com/sgl-project/sglang/issues/29838.
        """
        allocated, free = _readable(self.allocated), _readable(self.capacity - self.reserved)
        return (
            f"NPU out of memory. Tried to allocate {_readable(needed)} (NPU 0; {_readable(self.capacity)} total "
            f"capacity; {allocated} already allocated; {allocated} current active; {free} free; "
            f"{_readable(self.reserved)} reserved in total by PyTorch)."
            "If reserved memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation."
        )


allocator = Allocator()


@contextmanager
def limit_memory(size: int) -> Iterator[None]:
    """For the length of the block the device has `size` bytes in all, what is allocated already included."""
    before, allocator.capacity = allocator.capacity, size
    allocator.empty_cache()
    try:
        yield
    finally:
        allocator.capacity = before


def _rounded(size: int) -> int:
    return -(-(size + 32) // BLOCK) * BLOCK if size > 0 else 0


def _readable(size: int) -> str:
    """Bytes as PyTorch's allocators print them."""
    if size <= 1024:
        return f"{size} bytes"
    for unit, scale in (("KiB", 2**10), ("MiB", 2**20)):
        if size <= scale * 1024:
            return f"{size / scale:.2f} {unit}"
    return f"{size / 2**30:.2f} GiB"
