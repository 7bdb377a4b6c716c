"""Measuring what may fail: the time that work takes, sizes that grow until the memory ends, and the words for that."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from env.errors import KitError
from env.settings import Settings
from runtime.measure.bench import Absent, Found
from runtime.model.device import Device, is_out_of_memory

Result = TypeVar("Result")
Size = TypeVar("Size", int, float)

# What a measurement may fail of: foreseen failures, and what torch and torch_npu raise.
FAILURES = (KitError, RuntimeError, MemoryError)


def timed(device: Device, work: Callable[[], Result]) -> tuple[float, Result]:
    """The seconds that work takes until the device has done it, too; and its result."""
    began = time.perf_counter()
    result = work()
    device.synchronize()
    return time.perf_counter() - began, result


def ascending(
    part: str, sizes: Sequence[Size], device: Device, measured: Callable[[Size], Iterable[Found]]
) -> Iterator[Found]:
    """What `measured` finds of each size, the smallest first. One that fails is absent, and so are all that are larger:
    they would need more memory still."""
    failed: Size | None = None
    for size in sorted(sizes):
        what = f"{part}@{size:g}"
        if failed is not None:
            yield Absent(what, f"not tried, as {failed:g} failed", "see there")
            continue
        try:
            yield from tuple(measured(size))
        except FAILURES as error:
            yield absent(what, error)
            failed = size
        device.empty_cache()


def turns(names: Sequence[str], number: int) -> list[str]:
    """The names in the order of round `number`: each round begins with another one."""
    first = number % len(names) if names else 0
    return [*names[first:], *names[:first]]


def absent(what: str, error: BaseException) -> Absent:
    """Why something was not measured, of one of FAILURES."""
    if isinstance(error, KitError):
        return Absent(what, f"{error.subject}: {error.reason}", error.advice)
    first = str(error).strip().partition("\n")[0]
    if is_out_of_memory(error):
        return Absent(what, f"out of memory: {first}", "see what else holds the device's memory: npu-smi info")
    return Absent(what, f"{type(error).__name__}: {first}")


def cut_short(what: str, truncated: bool, settings: Settings) -> Iterator[Absent]:
    """That the limit of tokens ended what was measured, if it did."""
    if truncated:
        reason = f"ASR_MAX_NEW_TOKENS={settings.max_new_tokens} cut the answer off: measured is up to there"
        yield Absent(what, reason, "raise it, unless the weights are random: what they answer never ends")
