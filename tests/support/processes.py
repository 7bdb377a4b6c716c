"""Real processes on loopback for the tests of them, most of them a stand-in for the server."""

import ctypes
import gc
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from engine import free_port

from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime.host.local_client import ask_health
from runtime.host.processes import ProcessHandle, await_exit
from runtime.ops.process import state
from runtime.ops.process.control import Started, stop
from runtime.ops.process.control import start as start_process
from runtime.restart_policy import DEFAULT_POLICY, Policy

LONG = 60  # seconds after which what is awaited will never come


@contextmanager
def port_of_its_own(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a port and an output directory of their own; whatever runs there in the end is killed."""
    variables = {"ASR_DEVICE": "cpu", "ASR_PORT": str(free_port()), "ASR_OUT_DIR": str(tmp_path / "out")}
    made = load_settings(variables)
    yield made
    stop(made, now=True, grace=0)
    assert not state.is_locked(state.state_files(made).lock)


def start(settings: Settings, behaviour: str = "ready", *, policy: Policy = DEFAULT_POLICY) -> Started:
    """Start a stand-in."""
    return start_process(settings, on_stage=lambda _: None, command=stand_in(behaviour), policy=policy)


def stand_in(behaviour: str) -> list[str]:
    """The command of tests/support/process_server.py."""
    return [sys.executable, str(PROJECT / "tests" / "support" / "process_server.py"), behaviour]


def processes(settings: Settings) -> tuple[ProcessHandle, ProcessHandle]:
    """The supervisor and the server on record."""
    found = state.read_state(state.state_files(settings)).record
    assert found
    assert found.server
    return found.supervisor, found.server


def kill(process: ProcessHandle) -> None:
    """Kill a process and wait until it has ended."""
    with process.handle() as handle:
        assert handle is not None
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert await_exit(handle, LONG)


def await_end(process: ProcessHandle) -> None:
    """Wait until a process has ended."""
    with process.handle() as handle:
        assert handle is None or await_exit(handle, LONG)


def await_ready(url: str) -> None:
    """Wait until the server at `url` is ready."""
    until = time.monotonic() + LONG
    while ask_health(url).status != "ready":
        assert time.monotonic() < until, f"{url} is not ready"
        time.sleep(0.05)


def log_of(settings: Settings) -> str:
    """The server's log."""
    return state.state_files(settings).log.read_text(encoding="utf-8")


def lines_until(lines: Iterator[str], word: str) -> Iterator[str]:
    """The lines up to the one that has the word."""
    for line in lines:
        yield line
        if word in line:
            return


def resident() -> int:
    """Bytes of memory that this process, server and clients, holds and needs: without what the C library keeps of what
    was freed, which depends on all that ran here before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)
