"""One vLLM as a child of this process: started, watched, ended, with all that it started itself.

Its processes are a group of their own: the API server, which is the child, and VLLM::EngineCore, which has the device
and would live on without it. The child gets SIGTERM when this process dies, and then answers what it has accepted.
"""

import contextlib
import http.client
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO

from env.errors import FaultError, KitError
from runtime.engines.vllm.command import LOOPBACK, LaunchSpec
from runtime.engines.vllm.launcher import PARENT_VARIABLE
from runtime.engines.vllm.log_parser import LogParser
from runtime.host import processes

ABORTED_START_GRACE = 5.0  # seconds for a start that is given up to end by itself
GROUP_EXIT_TIMEOUT = 2.0  # seconds for what the API server leaves behind to end by itself, before it is killed
KILL_TIMEOUT = 10.0  # seconds for the kernel to end what was killed, and for its last lines
READINESS_INTERVAL = 0.25  # seconds between readiness checks
READINESS_TIMEOUT = 5.0  # seconds for the answer to one

log = logging.getLogger("runtime.engines.vllm")


class VllmProcess:
    """A vLLM process, to be started once.

    `on_stage` is called with each stage of its start; `on_end`, once, with the reason if it ends after it was ready
    without `stop`. Both are called in threads of this object and must return at once.
    """

    def __init__(self, spec: LaunchSpec, *, on_stage: Callable[[str], None], on_end: Callable[[str], None]) -> None:
        self.spec = spec
        self._log_parser = LogParser(spec.name, on_stage)
        self._on_end = on_end
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None  # while there is one to signal
        self._ready = self._stop_requested = False
        self._launched, self._ended = threading.Event(), threading.Event()
        self._exit = ""  # how, in words
        # The kernel signals the child when the thread that started it ends: this one lives as long as the child.
        self._thread = threading.Thread(target=self._supervise, name=spec.name, daemon=True)

    @property
    def url(self) -> str:
        """The base URL of its API on loopback."""
        return f"http://{LOOPBACK}:{self.spec.port}"

    @property
    def pid(self) -> int | None:
        """Pid of the API server and id of its process group; None where none runs."""
        process = self._process
        return process.pid if process else None

    @property
    def ready(self) -> bool:
        """Whether it has ever been ready to decode."""
        return self._ready

    @property
    def facts(self) -> dict[str, str]:
        """The type of `device` (npu, cpu) and the versions of vllm, vllm-ascend, torch, torch-npu and transformers, as
        far as they are installed; empty until its launcher has reported them."""
        return self._log_parser.facts

    def start(self, timeout: float) -> None:
        """Start it; returns when its /health answers 200.

        Raises KitError where it ends before because of how it is set up, FaultError where it ends for another reason or
        is not ready within `timeout` seconds. Then, and if another exception interrupts this, nothing of it is left.
        """
        deadline = time.monotonic() + timeout
        try:
            self._thread.start()
            while not self._healthy():
                if self._ended.wait(READINESS_INTERVAL):
                    raise self._failure()
                if time.monotonic() > deadline:
                    reason = f"not ready after {timeout:.0f} s; it was {self._log_parser.stage}"
                    advice = "ASR_VLLM_START_SECONDS gives it longer, ASR_LOG_LEVEL=debug shows all that it says"
                    raise FaultError(self.spec.name, reason, advice)
            with self._lock:
                self._ready = not self._ended.is_set()
            if not self._ready:
                raise self._failure()
        finally:
            if not self._ready:
                self.stop(ABORTED_START_GRACE)

    def stop(self, grace: float) -> None:
        """Stop it: it answers what it has accepted for up to `grace` seconds, then is killed.

        Returns when nothing of its process group is left. May be called at any time, and again.
        """
        with self._lock:
            self._stop_requested = True
        if not self._thread.ident:
            return
        self._launched.wait()
        try:
            self._signal(signal.SIGTERM)
            self._ended.wait(grace)
        finally:
            self._signal(signal.SIGKILL)
        self._thread.join()

    def _supervise(self) -> None:
        """Run the process to its end, and call `on_end` if it ended unexpectedly."""
        try:
            self._exit = self._run()
        except OSError as error:
            self._exit = f"{error.filename or self.url}: {error.strerror}"
        finally:
            with self._lock:
                self._ended.set()
                unexpected = self._ready and not self._stop_requested
            self._launched.set()
        if unexpected:
            self._on_end(self._explain_end()[0])

    def _run(self) -> str:
        """Run the process; returns its exit code in words. Raises OSError where it cannot be started."""
        # The port stays bound for as long as the child lives, so that nobody else gets it meanwhile, not as the port of
        # a connection either. As nobody listens here, vLLM may bind it too.
        with socket.socket() as reservation:
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reservation.bind((LOOPBACK, self.spec.port))
            with self._lock:
                if self._stop_requested:
                    return "before it was started"
                process = self._process = subprocess.Popen(
                    self.spec.command,
                    env={**self.spec.environment, PARENT_VARIABLE: str(os.getpid())},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,
                )
            self._launched.set()
            assert process.stdout
            reading = threading.Thread(target=self._read, args=(process.stdout,), name="log", daemon=True)
            reading.start()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # not reaped, so that its number stays its own
            reading.join(GROUP_EXIT_TIMEOUT)  # the pipe ends when the last of the group has
            with self._lock:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
                self._process = None
            reading.join(KILL_TIMEOUT)
            return processes.describe_exit(code)

    def _read(self, lines: IO[str]) -> None:
        """Read its log until the last writer has ended; a full pipe would block them."""
        with lines:
            for line in lines:
                try:
                    self._log_parser.read(line)
                except Exception:
                    log.exception("%s: a line of its log could not be read", self.spec.name)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the API server, or kill the whole group; nothing where it has ended."""
        with self._lock:
            if self._process:
                send = os.killpg if number == signal.SIGKILL else os.kill
                send(self._process.pid, number)

    def _healthy(self) -> bool:
        if not self.pid:  # not started yet, or ended: whoever answers on that port is another
            return False
        connection = http.client.HTTPConnection(LOOPBACK, self.spec.port, timeout=READINESS_TIMEOUT)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        return False

    def _failure(self) -> KitError:
        """The exception for a start that failed: KitError where the configuration is at fault, else FaultError."""
        how, remedy = self._explain_end()
        reason = f"has ended while {self._log_parser.stage}, {how}"
        kind = KitError if self._log_parser.refused else FaultError
        return kind(self.spec.name, reason, remedy or "ASR_LOG_LEVEL=debug shows all that it says")

    def _explain_end(self) -> tuple[str, str]:
        """How it ended, with the reason from its log if there is one, and advice, which may be empty."""
        reason, remedy = self._log_parser.cause()
        return f"{self._exit}: {reason}" if reason else self._exit, remedy
