"""Memory that the C library keeps of what was freed, given back to the system."""

import itertools

from starlette.concurrency import run_in_threadpool

from runtime.model.device import trim_heap

# Bodies and sessions between two times. Of 500 uploads that wait, glibc keeps 100 MiB and more of what parsing them
# took, and 3 to 6 MiB of each session in which somebody spoke; to give it back takes a millisecond or a few.
EVERY = 64

_ended = itertools.count(1)


async def tidy(*, last: bool = False) -> None:
    """To be called after each body that was read, and after each session in which there was sound, which may have been
    the `last` that was open."""
    if next(_ended) % EVERY == 0 or last:
        await run_in_threadpool(trim_heap)
