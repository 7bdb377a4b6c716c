"""What the simulated device was asked to do: kernels launched, times the host waited, bytes that crossed."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Counters:
    """Counts since the import of torch_npu, or in a `measured` block."""

    launched: Mapping[str, int] = field(default_factory=Counter)
    """Operators that reach a kernel, by name, as `add.Tensor`."""
    synchronised: Mapping[str, int] = field(default_factory=Counter)
    """What made the host wait for the device, by operator, as `_local_scalar_dense` (`.item()`)."""
    bytes_to_device: int = 0
    bytes_to_host: int = 0
    copies_to_device: int = 0
    copies_to_host: int = 0

    @property
    def launches(self) -> int:
        return sum(self.launched.values())

    @property
    def synchronisations(self) -> int:
        return sum(self.synchronised.values())

    def __sub__(self, earlier: "Counters") -> "Counters":
        return Counters(
            launched=Counter(self.launched) - Counter(earlier.launched),
            synchronised=Counter(self.synchronised) - Counter(earlier.synchronised),
            bytes_to_device=self.bytes_to_device - earlier.bytes_to_device,
            bytes_to_host=self.bytes_to_host - earlier.bytes_to_host,
            copies_to_device=self.copies_to_device - earlier.copies_to_device,
            copies_to_host=self.copies_to_host - earlier.copies_to_host,
        )


class _Tally:
    """The running counts. Several threads may use the device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._launched: Counter[str] = Counter()
        self._synchronised: Counter[str] = Counter()
        self._to_device: list[int] = [0, 0]
        self._to_host: list[int] = [0, 0]

    def launch(self, operator: str) -> None:
        with self._lock:
            self._launched[operator] += 1

    def synchronise(self, operator: str) -> None:
        with self._lock:
            self._synchronised[operator] += 1

    def copy_to_device(self, size: int) -> None:
        with self._lock:
            self._to_device = [self._to_device[0] + 1, self._to_device[1] + size]

    def copy_to_host(self, size: int) -> None:
        with self._lock:
            self._to_host = [self._to_host[0] + 1, self._to_host[1] + size]

    def read(self) -> Counters:
        with self._lock:
            return Counters(
                launched=self._launched.copy(),
                synchronised=self._synchronised.copy(),
                bytes_to_device=self._to_device[1],
                bytes_to_host=self._to_host[1],
                copies_to_device=self._to_device[0],
                copies_to_host=self._to_host[0],
            )


tally = _Tally()


@contextmanager
def measured() -> Iterator[Callable[[], Counters]]:
    """`with measured() as spent: …`: `spent()` is what was counted in the block, from within it or afterwards."""
    before = tally.read()
    after: list[Counters] = []
    try:
        yield lambda: (after[0] if after else tally.read()) - before
    finally:
        after.append(tally.read())
