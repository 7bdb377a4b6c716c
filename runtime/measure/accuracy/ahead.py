"""Sound that is read while other sound is transcribed.

An engine then finds whole batches to choose from, however slow the disk or the coding is. Beside the speed it keeps the
figures steady: what stands together in a batch is padded together, which moves a word on the edge now and then.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from runtime.audio import Audio, Limits
from runtime.transcriber import Source

SECONDS = 600  # of audio that is held at most, 38 MB, beside the one sound that is read


@dataclass(frozen=True)
class Ready:
    """Sound that was read, or the failure to, which is told when its turn has come."""

    found: "Future[Audio]"

    def load(self, *, limits: Limits) -> Audio:  # noqa: ARG002 - kept when it was read
        """Raises what reading it raised."""
        return self.found.result()


@contextmanager
def ahead(sources: Sequence[Source], read: Callable[[Source], Audio]) -> Iterator[Iterator[Ready]]:
    """All sources in order, read by a thread that ends with the block."""
    room = threading.Semaphore(SECONDS)

    def work(source: Source) -> Audio:
        found = read(source)
        for _ in range(_seconds(found)):
            room.acquire()
        return found

    pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    coming = deque(pool.submit(work, source) for source in sources)

    def ready() -> Iterator[Ready]:
        while coming:
            future = coming.popleft()
            if future.exception() is None:
                room.release(_seconds(future.result()))
            yield Ready(future)

    try:
        yield ready()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        room.release(SECONDS)
        pool.shutdown()


def _seconds(sound: Audio) -> int:
    """What it takes of SECONDS."""
    return min(SECONDS, 1 + int(sound.seconds))
