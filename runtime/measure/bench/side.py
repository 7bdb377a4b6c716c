"""One of the kit's engines in a process of its own, behind the kit's own server on loopback."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from env.errors import KitError
from env.settings import Settings
from runtime.measure import where
from runtime.measure.apart import Pipe, apart
from runtime.measure.loopback import ADDRESS, serving
from runtime.measure.where import Where
from runtime.server.serve import allow_files
from runtime.transcriber import open_transcriber

FAREWELL = 60.0  # seconds for an engine to stop in, with all that it started


@dataclass(frozen=True)
class Side:
    """An engine that can be asked: its server's address, and where its model runs."""

    url: str
    where: Where


@contextmanager
def side(settings: Settings, changed: Mapping[str, Any]) -> Iterator[Side]:
    """The engine of these settings, of which some are `changed`, by their names; it stops with the block, and with it
    what it started. Raises KitError where it does not start."""
    wanted = settings.model_copy(update=dict(changed))
    with apart(_serve, wanted, name=f"the process of the engine {wanted.engine_name}") as pipe:
        told = pipe.recv()
        if isinstance(told, KitError):
            raise told
        port, place = told
        known = {f"ASR_{name.upper()}": str(value) for name, value in changed.items()}
        try:
            yield Side(f"http://{ADDRESS}:{port}", replace(place, settings={**place.settings, **known}))
        finally:
            with suppress(OSError):  # it has ended already
                pipe.send(None)
                pipe.poll(FAREWELL)


def _serve(pipe: Pipe, settings: Settings) -> None:
    """Tell port and place, or what keeps the engine from starting; then serve until told otherwise."""
    allow_files()
    try:
        with open_transcriber(settings) as transcriber, serving(transcriber) as server:
            pipe.send((server.port, where.of(transcriber)))
            pipe.recv()
    except KitError as error:
        pipe.send(error)
        return
    pipe.send(None)
