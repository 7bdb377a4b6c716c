"""Runs an EngineManager in the test's process, with a model whose device fails when the test says so."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
import torch
from serving import PATIENCE, TRANSCRIPTIONS

from env.settings import Settings
from runtime.ops.process.state import DrainSummary
from runtime.restart_policy import Policy
from runtime.server.app import create_app
from runtime.server.engine_manager import EngineManager, ServerStoppedError, SignalHandler
from runtime.server.http import run_http_server
from runtime.server.state import ServerState


class Device:
    """Where the model computes: it goes on, waits until `goes_on` is set, or raises `failure` in the engine's thread,
    `times` times. `waits` says that it waits."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.failure: BaseException | None = None
        self.times = 0
        self.then_hold = False
        self.goes_on, self.waits = threading.Event(), threading.Event()
        self.goes_on.set()
        product = torch.nn.Linear.forward

        def forward(layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
            if not self.goes_on.is_set():
                self.waits.set()
                assert self.goes_on.wait(PATIENCE)
            if self.times:
                self.times -= 1
                if self.then_hold:
                    self.hold()
                assert self.failure
                raise self.failure
            return product(layer, inputs)

        patch.setattr(torch.nn.Linear, "forward", forward)

    def fail(self, failure: BaseException, times: int = 10**9, *, then_hold: bool = False) -> None:
        """From now on."""
        self.failure, self.times, self.then_hold = failure, times, then_hold

    def hold(self) -> None:
        """From now on it waits."""
        self.waits.clear()
        self.goes_on.clear()


@dataclass(frozen=True)
class ManagedServer:
    """A server that is ready, or was; `ready` has an entry for each time, `over` is set when it has ended."""

    server_state: ServerState
    url: str
    ready: "SimpleQueue[int]"
    over: threading.Event

    def post(self, audio: bytes, path: str = TRANSCRIPTIONS, **data: str) -> httpx.Response:
        """A request for a transcript."""
        return httpx.post(self.url + path, files={"file": audio}, data=data, timeout=PATIENCE)

    def health(self) -> tuple[int, Any]:
        """What /health/ready says."""
        answer = httpx.get(f"{self.url}/health/ready", timeout=PATIENCE)
        return answer.status_code, answer.json()

    def await_ready(self) -> None:
        """Wait until it is ready, once for each time."""
        self.ready.get(timeout=PATIENCE)

    def send(self, number: signal.Signals) -> None:
        """Signal the server, which is this process."""
        os.kill(os.getpid(), number)


def run_engine_manager(settings: Settings, visit: Callable[[ManagedServer], None], *, policy: Policy) -> DrainSummary:
    """Serve as `invoke serve` does while `visit` runs in a thread, from the first time the server is ready on."""
    server_state, ready = ServerState(), SimpleQueue[int]()
    signals = SignalHandler(server_state)
    with (
        signals.installed(),
        run_http_server(create_app(server_state), host="127.0.0.1", port=0) as http_server,
        ThreadPoolExecutor(1) as pool,
    ):
        managed = ManagedServer(server_state, f"http://127.0.0.1:{http_server.port}", ready, threading.Event())

        def visited() -> None:
            try:
                managed.await_ready()
                visit(managed)
            finally:
                server_state.stop("the end of the visit", at_once=True)

        visitor = pool.submit(visited)
        try:
            return EngineManager(settings, server_state, http_server, signals, ready.put, []).run(policy)
        except ServerStoppedError:
            return DrainSummary()
        finally:
            managed.over.set()
            visitor.result()
