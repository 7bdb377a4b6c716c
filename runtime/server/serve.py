"""Run the server: listen, check, load, warm up, serve, drain."""

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
from runtime.model.checkpoint import Checkpoint
from runtime.ops import cache, exposure
from runtime.ops.deploy.image import cure
from runtime.ops.deploy.override import stop_seconds
from runtime.ops.image_manifest import MANIFEST
from runtime.ops.process import state
from runtime.ops.process.state import DrainSummary
from runtime.restart_policy import DEFAULT_POLICY, EngineFailures, Policy, clear_failures, count_times
from runtime.server import logs, systemd
from runtime.server.app import create_app
from runtime.server.credentials import Credentials
from runtime.server.engine_manager import EngineLostError, EngineManager, ServerStoppedError, SignalHandler
from runtime.server.http import run_http_server
from runtime.server.metrics import Metrics
from runtime.server.state import ServerState
from runtime.transcriber import model_directory
from runtime.weights import verify

log = logging.getLogger(__name__)

# Seconds that another thread may keep the engine's thread waiting after each operator. With Python's 5 ms, a step of a
# thousand operators takes seconds while a large message is parsed.
SWITCH_INTERVAL = 0.0005


def check(settings: Settings, *, on_bytes: Callable[[int], None]) -> None:
    """Raise KitError if the server must not start: for another engine deployment or stack than is installed, the demo
    model on an NPU host where nobody asked for it, an output directory that cannot be written, or weights that differ
    from weights.lock. Calls `on_bytes` with the number of bytes hashed.

    With remote vLLM servers (ASR_VLLM_URL), only the small files beside the weights are needed, and checked.
    """
    if settings.vllm_alone:
        raise UsageError("ASR_VLLM_ALONE", "wants vLLM without the server, and this is the server", "invoke vllm")
    npu_host.check_demo(settings)
    check_stack(settings)
    check_out_dir(settings)
    prune_cann_log(settings)
    if settings.engine_name == "vllm" and settings.vllm_url:
        Checkpoint.open_without_weights(model_directory(settings))
    else:
        verify.require(settings, on_bytes=on_bytes)


def check_stack(settings: Settings) -> None:
    """Raise KitError if ASR_STACK is another stack than the one installed."""
    installed = active_stack()
    if not is_stack(settings.stack, installed):
        reason = f"is {settings.stack} ({settings.origin('stack')}), but this is the {installed} stack"
        raise KitError("ASR_STACK", reason, f"{cure(settings, installed)}, or use another image")


def prune_cann_log(settings: Settings) -> None:
    """Keep CANN's logs bounded. If they cannot be removed, the server starts all the same."""
    try:
        freed = cache.prune(under_project(settings.out_dir) / cache.FOLDER)
    except OSError as error:
        log.warning("CANN's logs are not kept within %d MiB: %s", cache.MOST >> 20, error)
        return
    if freed:
        log.info("removed the oldest %d MiB of CANN's logs", freed >> 20)


def check_out_dir(settings: Settings) -> None:
    """Raise KitError if reports, logs and compiled operators cannot be written."""
    directory = under_project(settings.out_dir)
    try:
        make_private(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        advice = "mount it writable, for the user that runs this"
        raise KitError(str(directory), f"cannot be written: {error.strerror}", advice) from None


class VerifiedBytes:
    """Shows in the server's status how much of the weights is verified."""

    def __init__(self, server_state: ServerState) -> None:
        self._server_state, self._bytes = server_state, 0

    def add(self, count: int) -> None:
        self._bytes += count
        self._server_state.status_text = f"verifying weights, {self._bytes / 2**30:.1f} GiB"


def serve(
    settings: Settings, *, on_ready: Callable[[int], None] = lambda _: None, policy: Policy = DEFAULT_POLICY
) -> None:
    """Run until SIGTERM or SIGINT, then drain and return. Calls `on_ready` with the port each time that the server is
    ready.

    Ready means that a clip was transcribed the way requests are. When the engine fails later, requests are refused
    until it is loaded again, as often as `policy` allows; then the process ends, and the next process waits before it
    loads, the longer the more often that failed. Draining refuses new requests and answers the accepted ones, for at
    most ASR_DRAIN_SECONDS or until SIGINT; the rest is refused too. Keys and the certificate are read again when their
    files change, and on SIGHUP.

    Raises KitError if the server cannot start, EngineLostError if no engine survives.
    """
    logs.configure(settings)
    server_state = ServerState()
    credentials = Credentials(settings)
    signals = SignalHandler(server_state, on_hangup=credentials.reload)
    failures_file = state.state_files(settings).engine_failures
    raise_file_limit()
    sys.setswitchinterval(SWITCH_INTERVAL)
    app = create_app(server_state, access=credentials.access)
    metrics: Metrics = app.state.metrics
    metrics.add_certificate_expiry(credentials.tls)
    with signals.installed(), credentials.watching():
        try:
            if (warning := exposure.warning(settings)) and not MANIFEST.is_file():
                # Of a container, whoever started it knows where its port is published, and says this.
                log.warning("the server %s", warning)
            with run_http_server(app, host=settings.host, port=settings.port, tls=credentials.tls) as http_server:
                systemd.keep_alive(http_server)
                with signals.interruptible():
                    server_state.announce("verifying weights")
                    check(settings, on_bytes=VerifiedBytes(server_state).add)
                await_restart_delay(server_state, failures_file, policy)
                observers = [metrics.engine]
                manager = EngineManager(settings, server_state, http_server, signals, on_ready, observers)
                summary = manager.run(policy)
        except ServerStoppedError:
            systemd.notify_stopping(stop_seconds(settings))
            log.info("%s", server_state.status_text)
            summary = DrainSummary()
        except EngineLostError as error:
            now = time.time()
            with log_if_unwritable("the next process will not wait before it loads"):
                EngineFailures.read(failures_file, now, policy).add(failures_file, now, error.reason)
            raise
        log.info("stopped, %s", summary)
        with log_if_unwritable("invoke stop will not know how many requests were answered"):
            summary.write(state.state_files(settings).drain_summary, ProcessHandle.of(os.getpid()))
        with log_if_unwritable("the next start may wait for what this one has lost"):
            clear_failures(failures_file)


def await_restart_delay(server_state: ServerState, path: Path, policy: Policy) -> None:
    """Wait before loading an engine if earlier processes have lost theirs. Raises ServerStoppedError if the server is
    stopped meanwhile."""
    now = time.time()
    failures = EngineFailures.read(path, now, policy)
    if pause := failures.pause(now, policy):
        lost = f"lost {count_times(len(failures.times))} within {policy.window:.0f} s, at last: {failures.reason}"
        server_state.announce(
            f"waiting {pause:.0f} s before the engine is loaded, which was {lost}", level=logging.WARNING
        )
        if server_state.sleep(pause):
            raise ServerStoppedError


@contextlib.contextmanager
def log_if_unwritable(consequence: str) -> Iterator[None]:
    """Log a KitError of the block: what cannot be written must not change how the server ends."""
    try:
        yield
    except KitError as error:
        log.warning("%s: %s", consequence, error)


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: each waiting request holds a connection and perhaps an
    upload, and many hosts start with 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
