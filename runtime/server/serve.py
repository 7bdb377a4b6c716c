"""A server's life: listen, check, load, warm up, be ready, drain."""

import logging
import os
import resource
from collections.abc import Callable

from env.settings import Settings
from runtime.errors import KitError
from runtime.ops.process import record
from runtime.ops.process.crashes import USUAL, Policy
from runtime.ops.process.farewell import Farewell
from runtime.ops.process.identity import Process
from runtime.server import logs, preflight
from runtime.server.access import read_access
from runtime.server.app import create_app
from runtime.server.engine import Keeper
from runtime.server.instruments import Metrics
from runtime.server.life import Life
from runtime.server.listening import listening
from runtime.server.signals import StoppedError, Stops
from runtime.server.tls import read_tls

log = logging.getLogger(__name__)


class Tally:
    """How much of the weights is verified, in the health endpoint's words."""

    def __init__(self, life: Life) -> None:
        self._life, self._bytes = life, 0

    def add(self, count: int) -> None:
        """`count` bytes more."""
        self._bytes += count
        self._life.stage = f"verifying weights, {self._bytes / 2**30:.1f} GiB"


def serve(settings: Settings, *, on_ready: Callable[[int], None] = lambda _: None, policy: Policy = USUAL) -> None:
    """Run until SIGTERM or SIGINT, then drain and return. `on_ready` hears the port each time that it is ready.

    Ready means that a clip was transcribed through the path that requests take. An engine that fails then is loaded
    again, as often as `policy` allows; until it is ready, requests are refused. Draining means that new requests are
    refused and those that were accepted are answered, for at most ASR_DRAIN_SECONDS and until SIGINT; what is not done
    then is refused too. Raises KitError where the server cannot start, EngineLostError where no engine lives.
    """
    logs.configure(settings)
    life = Life()
    stops = Stops(life)
    allow_files()
    app = create_app(life, access=read_access(settings))
    metrics: Metrics = app.state.metrics
    with stops.heeded():
        try:
            with listening(app, host=settings.host, port=settings.port, tls=read_tls(settings)) as listener:
                with stops.interrupting():
                    life.enter("verifying weights")
                    preflight.check(settings, on_bytes=Tally(life).add)
                farewell = Keeper(settings, life, listener, stops, on_ready, [metrics.engine]).run(policy)
        except StoppedError:
            log.info("%s", life.stage)
            farewell = Farewell()
        log.info("stopped, %s", farewell)
        try:
            farewell.write(record.place(settings).farewell, Process.of(os.getpid()))
        except KitError as error:
            log.warning("invoke stop will not know how many requests were answered: %s", error)


def allow_files() -> None:
    """Let this process open as many files as the system permits it: each request that waits holds a connection and
    perhaps an upload, and many hosts begin with 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
