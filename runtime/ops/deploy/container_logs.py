"""Containers' logs that survive their containers: Docker removes both together."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from env.settings import Settings
from env.sources import under_project
from runtime.files import make_private
from runtime.host import docker
from runtime.host.docker import SHORT_ID

MIB = 1 << 20
LAST_LINES = 30.0  # seconds for the rest of a log, once its container has ended
FIRST_LINES = 5.0  # seconds for its beginning: a server says something as it starts
EVERY = 0.05  # seconds


@contextmanager
def kept(settings: Settings, container: str) -> Iterator[None]:
    """Save a container's log, to its last line, where it is removed within the context: as `container-<port>-<id>.log`
    in out/logs, the last ASR_LOG_MAX_MIB of it, and of each port the newest ASR_LOG_FILES.

    What cannot be saved is said and hinders nothing: a full disk must not keep a server from being stopped.
    """
    if not container:
        yield
        return
    path = under_project(settings.out_dir) / "logs" / f"container-{settings.port}-{container[:SHORT_ID]}.log"
    try:
        make_private(path.parent)
        descriptor = os.open(path.with_suffix(".part"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        _say(path, str(error.strerror))
        yield
        return
    # What is read only after the container has stopped is too late where compose removes it, too.
    command = ["docker", "logs", "--follow", container]
    with os.fdopen(descriptor, "r+b") as file:
        following = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        _begin(following, file.fileno(), ended=_ask(container, "{{.State.Running}}") != "true")
        try:
            yield
        finally:
            gone = not _ask(container, "{{.Id}}")
            _end(following, at_once=not gone)
            if gone and (why := _refusal(path.with_suffix(".part"), following.returncode)):
                _say(path, why)
            elif gone:
                _put_in_place(settings, path)
            path.with_suffix(".part").unlink(missing_ok=True)


def _ask(container: str, form: str) -> str:
    return docker.read_output(["docker", "inspect", "--type", "container", "--format", form, container])


def _begin(following: "subprocess.Popen[bytes]", output: int, *, ended: bool) -> None:
    """Return when Docker reads the log, or has read that of a container that has ended: it does not begin to read that
    of one which is about to be removed."""
    until = time.monotonic() + (LAST_LINES if ended else FIRST_LINES)
    while following.poll() is None and time.monotonic() < until and (ended or not os.fstat(output).st_size):
        time.sleep(EVERY)


def _end(following: "subprocess.Popen[bytes]", *, at_once: bool) -> None:
    try:
        if at_once:
            following.terminate()
        following.wait(LAST_LINES)
    except subprocess.TimeoutExpired:
        following.kill()
        following.wait()


def _refusal(path: Path, exit_code: int) -> str:
    """Why Docker showed nothing of the log, as with a logging driver that keeps it to itself: then all that it printed
    is one line. Empty where it showed some."""
    if exit_code <= 0:  # below: ended here, as it took too long
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        first, more = file.readline().strip(), file.read(1)
    return "" if more else first or f"docker logs ended with exit code {exit_code}"


def _put_in_place(settings: Settings, path: Path) -> None:
    try:
        _cut_head(path.with_suffix(".part"), settings.log_max_mib * MIB)
        path.with_suffix(".part").replace(path)
        found = path.parent.glob(f"container-{settings.port}-*.log")
        for old in sorted(found, key=lambda each: each.stat().st_mtime)[: -settings.log_files]:
            old.unlink()
    except OSError as error:
        _say(path, str(error.strerror))


def _cut_head(path: Path, most: int) -> None:
    """Leave the last `most` bytes of a file, from the start of a line."""
    if path.stat().st_size <= most:
        return
    with path.open("r+b") as source, path.open("r+b") as target:
        source.seek(-most, os.SEEK_END)
        source.readline()
        shutil.copyfileobj(source, target)  # to the front, behind which it reads
        target.truncate()


def _say(path: Path, why: str) -> None:
    print(f"{path.name}: the container's log is not kept: {why}", file=sys.stderr)
