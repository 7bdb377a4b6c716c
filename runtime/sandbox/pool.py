"""The helper processes of this process: forked as they are needed, kept while they are small, ended when they fail."""

import atexit
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.sandbox import framing
from runtime.sandbox.bounds import CancelledError, ExceededError, RefusedError

# Most calls are done at once. One that takes longer than this makes room for others: it goes on where few do, with the
# lowest claim to the CPU; where all places there are taken it is ended, and begins anew when one is free.
QUICK_SECONDS = 0.5
QUICK_PLACES = 4
MOST_SLOW_PLACES = 4
SLOW_PLACES = max(2, min(MOST_SLOW_PLACES, (os.cpu_count() or 1) // 4))
SLOW_NICE = 10
START_SECONDS = 60.0  # for the template, which imports numpy and FFmpeg before its first answer
KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")  # of the environment, in which there are keys
MODULES = ("runtime.audio.decode", "runtime.server.chat_body")  # in which there are tasks
PROJECT = Path(__file__).resolve().parents[2]

Files = tuple[int, int]

log = logging.getLogger(__name__)


class Cancellation:
    """Ends a call, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], object] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Have the call, running or to come, end with CancelledError."""
        with self._lock:
            self.cancelled = True
            if self._end:
                self._end()

    @contextlib.contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """Within the block `end` is called when it is cancelled. Raises CancelledError where it was before."""
        with self._lock:
            if self.cancelled:
                raise CancelledError
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None


class _Template:
    """The process that forks helpers. It is their parent, so a pid is a helper's until it was asked to end it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runtime.sandbox.template", str(theirs.fileno()), *MODULES],
                cwd=PROJECT,
                env={**kept, "OPENBLAS_NUM_THREADS": "1"},  # only a process of one thread is forked whole
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process, which then ends it
            )
        self._control.settimeout(START_SECONDS)

    def fork(self, connection: socket.socket) -> int:
        """Fork a helper that has the other end of a connection; returns its pid. Raises OSError where it is gone."""
        with self._lock:
            socket.send_fds(self._control, [b"fork"], [connection.fileno()])
            return self._answer()

    def end(self, pid: int) -> int:
        """Kill a helper, which may have ended; returns its status, as `os.waitpid` does. Raises OSError like `fork`."""
        with self._lock:
            self._control.send(str(pid).encode())
            return self._answer()

    def _answer(self) -> int:
        answer = self._control.recv(4096)
        if not answer.isdigit():
            raise ConnectionResetError(f"the process that starts helpers has ended {answer.decode()}".rstrip())
        return int(answer)

    def close(self) -> None:
        """End it; its helpers end with it."""
        self._control.close()
        self._process.kill()
        self._process.wait()


class _Helper:
    """One helper process."""

    def __init__(self, template: _Template) -> None:
        self._template = template
        self._lock = threading.Lock()
        self._status: int | None = None
        self._connection, theirs = socket.socketpair()
        try:
            with theirs:
                self.pid = template.fork(theirs)
        except BaseException:
            self._connection.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Of a helper that waits: whether it still does."""
        try:
            self._connection.settimeout(0)
            return bool(self._connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def begin(self, message: bytes, files: Files) -> None:
        """Have it work on a call; that it is gone shows when its reply is awaited."""
        self._connection.settimeout(None)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            framing.send(self._connection, message, files)

    def reply(self, seconds: float) -> dict[str, Any]:
        """Raises TimeoutError where there is none within that time, EOFError where there never will be one."""
        self._connection.settimeout(seconds)
        try:
            message, _ = framing.receive(self._connection)
        except ConnectionResetError:
            raise EOFError from None
        reply: dict[str, Any] = json.loads(message)
        return reply

    def yield_to_others(self) -> None:
        """From now on it gets the CPU where nobody else wants it."""
        with self._lock, contextlib.suppress(OSError):
            if self._status is None:  # until then the pid is its own
                os.setpriority(os.PRIO_PROCESS, self.pid, SLOW_NICE)

    def end(self) -> int:
        """Kill it, unless it has ended; returns its status."""
        with self._lock:
            if self._status is None:
                try:
                    self._status = self._template.end(self.pid)
                except OSError:  # the template is gone, and its helpers with it
                    self._status = signal.SIGKILL
                self._connection.close()
            return self._status


class Pool:
    """Calls that are worked on, and helpers that wait for more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._template: _Template | None = None
        self._idle: list[_Helper] = []
        self._quick = threading.Semaphore(QUICK_PLACES)
        self._slow = threading.Semaphore(SLOW_PLACES)

    def warm_up(self) -> None:
        """Start the template."""
        with self._lock:
            self._template = self._template or _Template()

    def call(self, request: Mapping[str, Any], files: Files, cancellation: Cancellation) -> Any:
        """See `runtime.sandbox.call`; the request holds the bounds too."""
        message = json.dumps(request).encode()
        goes_on = False
        with self._quick:
            helper = self._begun(message, files)
            try:
                return self._result(helper, QUICK_SECONDS, request, cancellation)
            except TimeoutError:
                goes_on = self._slow.acquire(blocking=False)
                if not goes_on:
                    helper.end()
        if not goes_on:
            self._slow.acquire()
        try:
            if not goes_on:
                helper = self._begun(message, files)
            helper.yield_to_others()
            return self._result(helper, request["seconds"], request, cancellation)
        except TimeoutError:
            helper.end()
            raise ExceededError(f"takes longer to read than {request['seconds']:g} s") from None
        finally:
            self._slow.release()

    def close(self) -> None:
        """End all helpers."""
        with self._lock:
            for helper in self._idle:
                helper.end()
            self._idle.clear()
            if self._template:
                self._template.close()
            self._template = None

    def _begun(self, message: bytes, files: Files) -> _Helper:
        """A helper that works. Raises OSError where none can be had."""
        helper = self._waiting() or self._new()
        helper.begin(message, files)
        return helper

    def _waiting(self) -> _Helper | None:
        with self._lock:
            while self._idle:
                helper = self._idle.pop()
                if helper.is_alive:
                    return helper
                helper.end()
        return None

    def _new(self) -> _Helper:
        self.warm_up()
        template = self._template
        assert template
        try:
            return _Helper(template)
        except OSError:  # it was killed
            with self._lock:
                if self._template is template:
                    template.close()
                    self._template = _Template()
                template = self._template
            assert template
            return _Helper(template)

    def _result(self, helper: _Helper, seconds: float, request: Mapping[str, Any], cancellation: Cancellation) -> Any:
        """What a helper gives, which then waits for more. Raises TimeoutError where it goes on working."""
        try:
            with cancellation.ending(helper.end):
                reply = helper.reply(seconds)
        except TimeoutError:
            raise
        except EOFError:
            status = helper.end()
            if cancellation.cancelled:
                raise CancelledError from None
            raise ExceededError(_fate(status, request)) from None
        except BaseException:
            helper.end()
            raise
        if reply["is_last"]:
            helper.end()
        else:
            with self._lock:
                self._idle.append(helper)
        if "exceeded" in reply:
            raise ExceededError(f"takes more than {request['memory'] >> 20} MiB of memory to read")
        if "refused" in reply:
            kind, *arguments = reply["refused"]
            raise RefusedError(kind, tuple(arguments))
        if "system" in reply:
            raise OSError(*reply["system"])
        if "failed" in reply:
            raise RuntimeError(f"a helper process has failed:\n{reply['failed']}")
        return reply["result"]


def _fate(status: int, request: Mapping[str, Any]) -> str:
    """Why a helper has ended by itself, in words that follow a file's name."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return f"takes more than {request['cpu_seconds']:.0f} s of CPU time to read"
    if code == -signal.SIGKILL:
        return "takes more memory to read than this machine has left"
    name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    log.error("a helper process has crashed: %s", name)
    return f"makes what reads it crash ({name})"


@functools.cache
def pool() -> Pool:
    """The helpers of this process."""
    found = Pool()
    atexit.register(found.close)
    return found
