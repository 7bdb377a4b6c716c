"""The template process and the helpers that it forks: `python -m runtime.sandbox.template DESCRIPTOR MODULE…`."""

import contextlib
import ctypes
import importlib
import json
import math
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from env.errors import KitError
from runtime.sandbox import framing

# A task gets a file, another that it writes, arguments, and what earns it seconds of CPU time. The modules that have
# one have `try_out` too, which loads what is loaded at its first use: helpers can open nothing.
Task = Callable[[IO[bytes], IO[bytes], Mapping[str, Any], Callable[[float], None]], Any]

# Beside standard streams to nowhere: the connection, its own size as the kernel tells it, the two files of a call.
CONNECTION, SIZE, MOST_DESCRIPTORS = 3, 4, 7
TEMPLATE_DESCRIPTORS = 64  # far more than it has
GROWTH = 64 << 10  # KiB by which a helper may grow and still be kept; a new one costs a millisecond
BUFFER = 1 << 20  # bytes of what is written
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, see prctl(2)
FIRST_KILLED = "1000"  # when the machine is out of memory, see proc_pid_oom_score_adj(5)


def main(control: socket.socket, modules: Sequence[str]) -> None:
    """Fork helpers, and end them, for the process at the other end, until that ends."""
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # service managers send them to all processes
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # were it ignored, helpers could not be waited for
    _limit(resource.RLIMIT_NOFILE, TEMPLATE_DESCRIPTORS)
    with contextlib.suppress(OSError):  # not every container lets it
        Path("/proc/self/oom_score_adj").write_text(FIRST_KILLED, encoding="ascii")
    for name in modules:
        importlib.import_module(name).try_out()
    while True:
        request, connections, *_ = socket.recv_fds(control, 64, 1)
        if not request:
            return
        if connections:
            answer = _forked(connections[0])
            os.close(connections[0])
        else:
            os.kill(int(request), signal.SIGKILL)
            _, answer = os.waitpid(int(request), 0)
        control.send(str(answer).encode())


def _forked(connection: int) -> int:
    """The pid of a new helper, or the error number, negative."""
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or 1)
    if not pid:
        _serve(connection)
    return pid


def _serve(connection: int) -> None:
    """Be a helper."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    os.dup2(connection, CONNECTION)
    os.closerange(CONNECTION + 1, TEMPLATE_DESCRIPTORS)
    os.open("/proc/self/statm", os.O_RDONLY)  # becomes SIZE
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_DESCRIPTORS, MOST_DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    server = socket.socket(fileno=CONNECTION)
    most = _peak() + GROWTH
    try:
        while True:
            message, files = framing.receive(server)
            request = json.loads(message)
            reply = _answer(request, files)
            is_last = not reply.keys() & {"result", "refused"} or _peak() > most
            framing.send(server, json.dumps({**reply, "is_last": is_last}).encode())
    except (EOFError, OSError):
        pass  # the process at the other end is gone
    finally:
        os._exit(0)


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _peak() -> int:
    """KiB of memory that it had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _size() -> int:
    """Bytes of its address space."""
    return int(os.pread(SIZE, 64, 0).split()[0]) * resource.getpagesize()


def _answer(request: Mapping[str, Any], files: list[int]) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = used.ru_utime + used.ru_stime

    def earn(seconds: float) -> None:
        nonlocal allowed
        allowed += seconds
        _limit(resource.RLIMIT_CPU, math.ceil(allowed))

    _limit(resource.RLIMIT_AS, _size() + request["memory"])
    _limit(resource.RLIMIT_FSIZE, request["output"])
    earn(request["cpu_seconds"])
    module, _, function = request["task"].partition(":")
    task: Task = getattr(sys.modules[module], function)
    try:
        with os.fdopen(files[0], "rb") as file, os.fdopen(files[1], "r+b", BUFFER) as into:
            into.truncate(0)
            into.seek(0)
            result = task(file, into, request["arguments"], earn)
            into.flush()
            return {"result": result}
    except KitError as error:
        return {"refused": [type(error).__name__, error.subject, error.reason, error.advice]}
    except OSError as error:
        return {"system": [error.errno, error.strerror]}
    except MemoryError:
        return {"exceeded": "memory"}
    except Exception as error:  # noqa: BLE001 - a mistake of the kit's; whoever asked for it has it in its log
        return {"failed": "".join([*traceback.format_tb(error.__traceback__), type(error).__qualname__])}


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as asked_by:
        try:
            main(asked_by, sys.argv[2:])
        except Exception as error:  # noqa: BLE001 - there is no standard error
            asked_by.send(repr(error).encode())
