"""A kit in front of vLLM servers, for which stand-ins answer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from serving import PATIENCE
from vllm_server import Fault, StandIn

from env.settings import Settings
from env.sources import load_settings
from runtime.engines import Observer
from runtime.transcriber import Transcriber, open_transcriber


def in_front_of(*servers: StandIn, **variables: str) -> Settings:
    """Settings of a kit whose engine these are."""
    urls = ",".join(server.url for server in servers)
    return load_settings({"ASR_ENGINE": "vllm", "ASR_VLLM_URL": urls, **variables})


def hold(server: StandIn, count: int) -> list[Fault]:
    """Have the next utterances of a server wait after two tokens."""
    return [server.fault("hold", after=2) for _ in range(count)]


def until(condition: Callable[[], bool]) -> None:
    """Ask on and on, and fail after a long time."""
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline


@contextmanager
def connected(*servers: StandIn, observers: Sequence[Observer] = (), **variables: str) -> Iterator[Transcriber]:
    """The engine, with the stand-ins as its servers."""
    with open_transcriber(in_front_of(*servers, **variables), observers=observers) as opened:
        yield opened
