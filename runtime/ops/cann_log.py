"""The logs of CANN, which docker/Dockerfile leads to `cann-log` under the server's output: where they are, and a bound.

CANN itself bounds what one process writes; a process that was started again writes new files, and nobody removes those
of the one before.
"""

from pathlib import Path

from env.settings import Settings
from env.sources import under_project

FOLDER = "cann-log"
MOST = 256 << 20  # bytes of all files together that a start leaves


def directories(settings: Settings) -> list[Path]:
    """Where they are: of this process, as in a container, and on a host those of each container. Links are left out.
    Raises PermissionError where another user's directory cannot be looked into."""
    out = under_project(settings.out_dir)
    found = [out / FOLDER, *sorted(server / FOLDER for server in out.glob("server-*"))]
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def prune(directory: Path) -> int:
    """Remove the oldest files until no more than `MOST` bytes are left; returns how many bytes went. Raises OSError."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    by_age = sorted(((path.stat(), path) for path in files), key=lambda entry: entry[0].st_mtime)
    held = sum(status.st_size for status, _ in by_age)
    freed = 0
    for status, path in by_age:
        if held - freed <= MOST:
            break
        path.unlink()
        freed += status.st_size
    return freed
