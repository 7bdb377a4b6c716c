"""A transcriber opened before somebody's eyes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from env.settings import Settings
from runtime.engines import Observer
from runtime.progress import waiting
from runtime.transcriber import Transcriber, open_transcriber


class Stages(Observer):
    """Passes on how far an engine is that starts."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def starting(self, stage: str) -> None:
        """It is so far."""
        self._tell(stage)


@contextmanager
def loading(settings: Settings) -> Iterator[Transcriber]:
    """`open_transcriber`, which shows on standard error how far it is until the transcriber is there."""
    with (
        waiting(f"Loading {settings.model}") as wait,
        open_transcriber(settings, observers=[Stages(wait.tell)]) as transcriber,
    ):
        wait()
        yield transcriber
