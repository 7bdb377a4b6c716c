"""Memory that the C library keeps of what was freed, given back to the system."""

import itertools

from starlette.concurrency import run_in_threadpool

from runtime.device import trim_heap

# Bodies between two times. Of 500 uploads that wait, glibc keeps 100 MiB and more of what parsing them took; to give it
# back takes a millisecond or a few.
EVERY = 64

_bodies = itertools.count(1)


async def tidy() -> None:
    """To be called after each body that was read."""
    if next(_bodies) % EVERY == 0:
        await run_in_threadpool(trim_heap)
