"""One vLLM as a child of this process: started, watched, ended, with all that it started itself.

Its processes are a group of their own: the API server, which is the child, and VLLM::EngineCore, which has the device
and would live on without it. The child is told to end when this process dies, and then answers what it has accepted.
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
from runtime.engines.vllm.launcher import STARTER
from runtime.engines.vllm.log_parser import LogParser
from runtime.host import processes

GRACE = 5.0  # seconds for a start that is given up to end by itself
LAST_STEPS = 2.0  # seconds for what the API server leaves behind to end by itself, before it is killed
LAST_WORDS = 10.0  # seconds for the kernel to end what was killed, and for its last lines
EVERY = 0.25  # seconds between questions whether it is ready
TIMEOUT = 5.0  # seconds for the answer

log = logging.getLogger("runtime.engines.vllm")


class VllmProcess:
    """A vLLM, to be started once. `tell` hears how far its start is, and `on_end`, once, why it has ended if it was
    ready and nobody asked it to: both in threads of its own, in which they shall return at once."""

    def __init__(self, order: LaunchSpec, *, tell: Callable[[str], None], on_end: Callable[[str], None]) -> None:
        self.order = order
        self._reader = LogParser(order.name, tell)
        self._on_end = on_end
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None  # while there is one to signal
        self._ready = self._asked = False
        self._launched, self._ended = threading.Event(), threading.Event()
        self._end = ""  # how, in words
        # The kernel tells the child of the death of the thread that started it: this one lives as long as the child.
        self._thread = threading.Thread(target=self._supervise, name=order.name, daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.order.port}"

    @property
    def pid(self) -> int | None:
        """The API server's, and the number of the process group; None where none runs."""
        process = self._process
        return process.pid if process else None

    @property
    def ready(self) -> bool:
        """Whether it has ever been."""
        return self._ready

    @property
    def facts(self) -> dict[str, str]:
        """The type of `device` (npu, cpu) and the versions of vllm, vllm-ascend, torch, torch-npu and transformers, as
        far as they are installed; empty until its launcher has told."""
        return self._reader.facts

    def start(self, within: float) -> None:
        """Return when it is ready, as its /health says.

        Raises KitError where it ends before because of how it is set up, FaultError where it ends for another reason or
        is not ready `within` seconds; then, and if this is interrupted by another exception, nothing of it is left.
        """
        deadline = time.monotonic() + within
        try:
            self._thread.start()
            while not self._healthy():
                if self._ended.wait(EVERY):
                    raise self._failure()
                if time.monotonic() > deadline:
                    reason = f"not ready after {within:.0f} s; it was {self._reader.stage}"
                    advice = "ASR_VLLM_START_SECONDS gives it longer, ASR_LOG_LEVEL=debug shows all that it says"
                    raise FaultError(self.order.name, reason, advice)
            with self._lock:
                self._ready = not self._ended.is_set()
            if not self._ready:
                raise self._failure()
        finally:
            if not self._ready:
                self.stop(GRACE)

    def stop(self, seconds: float) -> None:
        """End it: it answers what it has accepted, for as many seconds at most, and is killed after that. Returns when
        nothing of it is left. May be called at any time, and again."""
        with self._lock:
            self._asked = True
        if not self._thread.ident:
            return
        self._launched.wait()
        try:
            self._signal(signal.SIGTERM)
            self._ended.wait(seconds)
        finally:
            self._signal(signal.SIGKILL)
        self._thread.join()

    def _supervise(self) -> None:
        """Start it and see it through to its end."""
        try:
            self._end = self._run()
        except OSError as error:
            self._end = f"{error.filename or self.url}: {error.strerror}"
        finally:
            with self._lock:
                self._ended.set()
                lost = self._ready and not self._asked
            self._launched.set()
        if lost:
            self._on_end(self._how()[0])

    def _run(self) -> str:
        """From start to end; returns its exit code in words. Raises OSError where it cannot be started."""
        # The port stays bound for as long as the child lives, so that nobody else gets it meanwhile, not as the port of
        # a connection either. As nobody listens here, vLLM may bind it too.
        with socket.socket() as reservation:
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reservation.bind((LOOPBACK, self.order.port))
            with self._lock:
                if self._asked:
                    return "before it was started"
                process = self._process = subprocess.Popen(
                    self.order.command,
                    env={**self.order.environment, STARTER: str(os.getpid())},
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
            reading.join(LAST_STEPS)  # the pipe ends when the last of the group has
            with self._lock:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
                self._process = None
            reading.join(LAST_WORDS)
            return processes.words(code)

    def _read(self, lines: IO[str]) -> None:
        """Until all who could write have ended: what is not read would hold them up."""
        with lines:
            for line in lines:
                try:
                    self._reader.read(line)
                except Exception:
                    log.exception("%s: a line of its log could not be read", self.order.name)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the API server, or kill the whole group; nothing where it has ended."""
        with self._lock:
            if self._process:
                send = os.killpg if number == signal.SIGKILL else os.kill
                send(self._process.pid, number)

    def _healthy(self) -> bool:
        if not self.pid:  # not started yet, or ended: whoever answers on that port is another
            return False
        connection = http.client.HTTPConnection(LOOPBACK, self.order.port, timeout=TIMEOUT)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        return False

    def _failure(self) -> KitError:
        """Why it did not become ready."""
        how, cure = self._how()
        reason = f"has ended while {self._reader.stage}, {how}"
        kind = KitError if self._reader.refused else FaultError
        return kind(self.order.name, reason, cure or "ASR_LOG_LEVEL=debug shows all that it says")

    def _how(self) -> tuple[str, str]:
        """How it has ended and for what reason, as far as it said so, and what to do about that, which may be empty."""
        reason, cure = self._reader.cause()
        return f"{self._end}: {reason}" if reason else self._end, cure
