"""A server's life: listen, check, load, warm up, be ready, drain."""

import contextlib
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from env.errors import KitError, UsageError
from env.settings import Settings
from env.sources import under_project
from env.stacks import active_stack, is_stack
from runtime.files import make_private
from runtime.host import npu_host
from runtime.host.processes import ProcessHandle
from runtime.model.checkpoint import check_texts
from runtime.ops import cache, exposure
from runtime.ops.deploy.image import cure
from runtime.ops.deploy.override import stop_seconds
from runtime.ops.image_manifest import MANIFEST
from runtime.ops.process import state
from runtime.ops.process.state import DrainSummary
from runtime.restart_policy import USUAL, EngineFailures, Policy, forget, times
from runtime.server import logs, systemd
from runtime.server.app import create_app
from runtime.server.credentials import Credentials
from runtime.server.engine_manager import EngineLostError, EngineManager, ServerStoppedError, SignalHandler
from runtime.server.http import listening
from runtime.server.metrics import Metrics
from runtime.server.state import ServerState
from runtime.transcriber import model_directory
from runtime.weights import verify

log = logging.getLogger(__name__)

# How long a thread that computes in Python keeps the engine's waiting after each of its operators; Python's 5 ms make a
# step of a thousand operators last seconds while a large message is being parsed.
SWITCH_SECONDS = 0.0005


def check(settings: Settings, *, on_bytes: Callable[[int], None]) -> None:
    """Raises KitError where the server must not start: vLLM is wanted without it, or another stack than is here; the
    demo model, on an NPU host where nobody asked for it; an output directory that cannot be written, weights that are
    not what weights.lock says. `on_bytes` hears of the bytes that were hashed.

    Where others have the weights (ASR_VLLM_URL), only the small files beside them are needed, and checked.
    """
    if settings.vllm_alone:
        raise UsageError("ASR_VLLM_ALONE", "wants vLLM without the server, and this is the server", "invoke vllm")
    npu_host.check_demo(settings)
    check_stack(settings)
    check_out_dir(settings)
    prune_cann_log(settings)
    if settings.engine_name == "vllm" and settings.vllm_url:
        check_texts(model_directory(settings))
    else:
        verify.require(settings, on_bytes=on_bytes)


def check_stack(settings: Settings) -> None:
    """Raises KitError where the settings are for another stack than is installed."""
    here = active_stack()
    if not is_stack(settings.stack, here):
        reason = f"is {settings.stack} ({settings.origin('stack')}), but this is the {here} stack"
        raise KitError("ASR_STACK", reason, f"{cure(settings, here)}, or use another image")


def prune_cann_log(settings: Settings) -> None:
    """Keep CANN's logs bounded. That they cannot be removed keeps no server from starting."""
    try:
        freed = cache.prune(under_project(settings.out_dir) / cache.FOLDER)
    except OSError as error:
        log.warning("CANN's logs are not kept within %d MiB: %s", cache.MOST >> 20, error)
        return
    if freed:
        log.info("removed the oldest %d MiB of CANN's logs", freed >> 20)


def check_out_dir(settings: Settings) -> None:
    """Raises KitError where reports, logs and compiled operators could not be written."""
    directory = under_project(settings.out_dir)
    try:
        make_private(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        advice = "mount it writable, for the user that runs this"
        raise KitError(str(directory), f"cannot be written: {error.strerror}", advice) from None


class VerifiedBytes:
    """How much of the weights is verified, in the health endpoint's words."""

    def __init__(self, life: ServerState) -> None:
        self._life, self._bytes = life, 0

    def add(self, count: int) -> None:
        """`count` bytes more."""
        self._bytes += count
        self._life.stage = f"verifying weights, {self._bytes / 2**30:.1f} GiB"


def serve(settings: Settings, *, on_ready: Callable[[int], None] = lambda _: None, policy: Policy = USUAL) -> None:
    """Run until SIGTERM or SIGINT, then drain and return. `on_ready` hears the port each time that it is ready.

    Ready means that a clip was transcribed through the path that requests take. An engine that fails then is loaded
    again, as often as `policy` allows; until it is ready, requests are refused. Where none lives, the process ends,
    and the next one waits before it loads: the longer, the more often that was in vain. Draining means that new
    requests are refused and those that were accepted are answered, for at most ASR_DRAIN_SECONDS and until SIGINT;
    what is not done then is refused too. Keys and the certificate are read again when their files change, and on
    SIGHUP. Raises KitError where the server cannot start, EngineLostError where no engine lives.
    """
    logs.configure(settings)
    life = ServerState()
    credentials = Credentials(settings)
    stops = SignalHandler(life, on_hangup=credentials.read_again)
    losses = state.place(settings).losses
    allow_files()
    sys.setswitchinterval(SWITCH_SECONDS)
    app = create_app(life, access=credentials.access)
    metrics: Metrics = app.state.metrics
    metrics.show_expiry(credentials.tls)
    with stops.heeded(), credentials.watched():
        try:
            if (warning := exposure.warning(settings)) and not MANIFEST.is_file():
                # Of a container, whoever started it knows where its port is published, and says this.
                log.warning("the server %s", warning)
            with listening(app, host=settings.host, port=settings.port, tls=credentials.tls) as listener:
                systemd.keep_alive(listener)
                with stops.interrupting():
                    life.enter("verifying weights")
                    check(settings, on_bytes=VerifiedBytes(life).add)
                await_turn(life, losses, policy)
                farewell = EngineManager(settings, life, listener, stops, on_ready, [metrics.engine]).run(policy)
        except ServerStoppedError:
            systemd.stopping(stop_seconds(settings))
            log.info("%s", life.stage)
            farewell = DrainSummary()
        except EngineLostError as error:
            now = time.time()
            with noted("the next process will not wait before it loads"):
                EngineFailures.read(losses, now, policy).add(losses, now, error.reason)
            raise
        log.info("stopped, %s", farewell)
        with noted("invoke stop will not know how many requests were answered"):
            farewell.write(state.place(settings).farewell, ProcessHandle.of(os.getpid()))
        with noted("the next start may wait for what this one has lost"):
            forget(losses)


def await_turn(life: ServerState, path: Path, policy: Policy) -> None:
    """Wait until an engine is due, after those that earlier processes have lost. Raises StoppedError where the server
    ends meanwhile."""
    now = time.time()
    losses = EngineFailures.read(path, now, policy)
    if pause := losses.pause(now, policy):
        lost = f"lost {times(len(losses.times))} within {policy.window:.0f} s, at last: {losses.reason}"
        life.enter(f"waiting {pause:.0f} s before the engine is loaded, which was {lost}", level=logging.WARNING)
        if life.pause(pause):
            raise ServerStoppedError


@contextlib.contextmanager
def noted(consequence: str) -> Iterator[None]:
    """What cannot be written down must not change how the server ends."""
    try:
        yield
    except KitError as error:
        log.warning("%s: %s", consequence, error)


def allow_files() -> None:
    """Let this process open as many files as the system permits it: each request that waits holds a connection and
    perhaps an upload, and many hosts begin with 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
