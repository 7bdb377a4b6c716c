"""The helper processes of this process: forked as they are needed, kept while they are small, ended when they fail."""

import atexit
import contextlib
import errno
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
from runtime.sandbox.bounds import CancelledError, ExceededError, RefusedError, UnavailableError

# Most calls are done at once. One that takes longer than this makes room for others: it goes on where few do, with the
# lowest claim to the CPU; where all places there are taken it is ended, and begins anew when one is free.
QUICK_SECONDS = 0.5
QUICK_PLACES = 4
MOST_SLOW_PLACES = 4
SLOW_PLACES = max(2, min(MOST_SLOW_PLACES, (os.cpu_count() or 1) // 4))
SLOW_NICE = 10
CANCEL_SECONDS = 0.1  # between two looks at whether a call that waits for its turn was cancelled
START_SECONDS = 60.0  # for the template, which imports numpy and FFmpeg before its first answer
KEPT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "HOME",
    "LANG",
    "LC_ALL",
)  # of the environment, in which there are keys
MODULES = ("runtime.audio.decode", "runtime.server.routes.chat_body")  # in which there are tasks
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
                with contextlib.suppress(_GoneError):  # what works on it has ended then
                    self._end()

    def check(self) -> None:
        """Raises CancelledError where it was cancelled."""
        if self.cancelled:
            raise CancelledError

    @contextlib.contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """Within the block `end` is called when it is cancelled. Raises CancelledError where it was before."""
        with self._lock:
            self.check()
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None

    @contextlib.contextmanager
    def waiting(self, places: threading.Semaphore) -> Iterator[None]:
        """A place for the block. Raises CancelledError."""
        while not places.acquire(timeout=CANCEL_SECONDS):
            self.check()
        try:
            self.check()
            yield
        finally:
            places.release()


class _GoneError(Exception):
    """The template has ended, or does not answer; its helpers have ended too."""


class _Template:
    """The process that forks helpers. It is their parent, so a pid is a helper's until it was asked to end it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        with theirs:
            try:
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
            except BaseException:
                self._control.close()
                raise
        self._control.settimeout(START_SECONDS)

    def fork(self, connection: socket.socket) -> int:
        """Fork a helper that has the other end of a connection; returns its pid. Raises UnavailableError where there
        can be none, and _GoneError."""
        with self._lock:
            pid = self._asked(b"fork", [connection.fileno()])
        if pid < 0:
            raise UnavailableError(-pid, os.strerror(-pid))
        return pid

    def end(self, pid: int) -> int:
        """Kill a helper, which may have ended; returns its status, as `os.waitpid` does. Raises _GoneError."""
        with self._lock:
            return self._asked(str(pid).encode(), [])

    def _asked(self, question: bytes, descriptors: list[int]) -> int:
        if self._closed:
            raise _GoneError("was ended")
        try:
            socket.send_fds(self._control, [question], descriptors)
            answer = self._control.recv(4096)
        except OSError as error:  # it would answer the last question next time
            self._end()
            raise _GoneError(error.strerror or str(error)) from None
        if not answer.lstrip(b"-").isdigit():
            self._end()
            raise _GoneError(answer.decode(errors="replace") or "has ended")
        return int(answer)

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    def close(self) -> None:
        """End it; its helpers end with it."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._control.close()
            self._process.kill()
            self._process.wait()


class _Helper:
    """One helper process."""

    def __init__(self, template: _Template) -> None:
        self._template = template
        self._lock = threading.Lock()
        self._status: int | None = None
        try:
            self._connection, theirs = socket.socketpair()
        except OSError as error:
            raise UnavailableError(*error.args) from None
        self._reader = framing.ReplyReader(self._connection)
        self.yields = False
        try:
            with theirs:
                self.pid = template.fork(theirs)
        except BaseException:
            self._connection.close()
            raise

    @property
    def is_waiting(self) -> bool:
        """Whether one that has nothing to do is there, and has said nothing of itself."""
        try:
            self._connection.settimeout(0)
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def begin(self, message: bytes, files: Files) -> None:
        """Have it work on a call; that it is gone shows when its reply is awaited."""
        self._connection.settimeout(None)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            framing.send(self._connection, message, files)

    def reply(self, seconds: float) -> dict[str, Any] | None:
        """None where it still works after so many seconds. Raises EOFError where it has ended."""
        try:
            reply: dict[str, Any] = json.loads(self._reader.read(seconds))
        except TimeoutError:
            return None
        except (ConnectionResetError, ValueError):
            raise EOFError from None
        return reply

    def yield_to_others(self) -> None:
        """From now on it gets the CPU where nobody else wants it; nothing takes that back."""
        self.yields = True
        with self._lock, contextlib.suppress(OSError):
            if self._status is None:  # until then the pid is its own
                os.setpriority(os.PRIO_PROCESS, self.pid, SLOW_NICE)

    def kill(self) -> int:
        """End it, unless it has ended; returns its status. Raises _GoneError where nobody knows it."""
        with self._lock:
            if self._status is None:
                self._status = self._template.end(self.pid)
            return self._status

    def close(self) -> None:
        """End it, and what it would still say."""
        with contextlib.suppress(_GoneError):
            self.kill()
        self._connection.close()


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
        try:
            return self._call(request, files, cancellation)
        except _GoneError as error:  # was killed, and with it what worked on this; the call can be made again
            log.warning("the process that starts helpers is started again: %s", error)
        try:
            return self._call(request, files, cancellation)
        except _GoneError as error:
            raise UnavailableError(errno.ESRCH, f"the process that starts helpers {error}") from None

    def close(self) -> None:
        """End all helpers."""
        with self._lock:
            for helper in self._idle:
                helper.close()
            self._idle.clear()
            if self._template:
                self._template.close()
            self._template = None

    def _call(self, request: Mapping[str, Any], files: Files, cancellation: Cancellation) -> Any:
        message = json.dumps(request).encode()
        with contextlib.ExitStack() as place, contextlib.ExitStack() as unless_kept:
            with cancellation.waiting(self._quick):
                helper = self._begun(message, files)
                unless_kept.callback(helper.close)
                reply = _reply(helper, QUICK_SECONDS, request, cancellation)
                goes_on = reply is None and self._slow.acquire(blocking=False)
                if goes_on:
                    place.callback(self._slow.release)
            if reply is None and not goes_on:
                helper.close()
                place.enter_context(cancellation.waiting(self._slow))
                helper = self._begun(message, files)
                unless_kept.callback(helper.close)
            if reply is None:
                helper.yield_to_others()
                reply = _reply(helper, request["seconds"], request, cancellation)
            if reply is None:
                raise ExceededError(f"takes longer to read than {request['seconds']:g} s")
            if not (reply["is_last"] or helper.yields):
                unless_kept.pop_all()
                with self._lock:
                    self._idle.append(helper)
        return _result(reply, request)

    def _begun(self, message: bytes, files: Files) -> _Helper:
        """A helper that works. Raises UnavailableError and _GoneError."""
        helper = self._waiting() or _Helper(self._started())
        helper.begin(message, files)
        return helper

    def _waiting(self) -> _Helper | None:
        with self._lock:
            while self._idle:
                helper = self._idle.pop()
                if helper.is_waiting:
                    return helper
                helper.close()
        return None

    def _started(self) -> _Template:
        """The template that runs."""
        with self._lock:
            if self._template is None or self._template.closed:
                try:
                    self._template = _Template()
                except OSError as error:
                    raise UnavailableError(*error.args) from None
            return self._template


def _reply(
    helper: _Helper, seconds: float, request: Mapping[str, Any], cancellation: Cancellation
) -> dict[str, Any] | None:
    """None where it still works. Raises CancelledError, ExceededError and _GoneError."""
    try:
        with cancellation.ending(helper.kill):
            return helper.reply(seconds)
    except EOFError:
        cancellation.check()
        raise ExceededError(_fate(helper.kill(), request)) from None


def _result(reply: Mapping[str, Any], request: Mapping[str, Any]) -> Any:
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
