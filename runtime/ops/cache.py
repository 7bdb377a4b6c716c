"""`invoke clear-cache`: give back what is kept for later, on the device and on disk."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError, UsageError
from env.settings import Settings
from env.sources import PROJECT, exports, under_project
from runtime.host import local_client
from runtime.host.processes import find_listener
from runtime.model.device import Emptied, empty, mib, open_device
from runtime.ops.process import state
from runtime.weights import catalog
from runtime.weights.catalog import ModelLocation, place, shown
from runtime.weights.staging import Workshop, workshop

FOLDER = "cann-log"
MOST = 256 << 20  # bytes of all files together that a start leaves

# What the hubs' own clients keep in a directory that they download into: huggingface-hub, modelscope.
CLIENTS = (".cache/huggingface", "._____temp")
LOCK = "lock"  # in .fetching: not removed, runtime/weights/staging.py says why
KIT = ("docker", "env", "runtime", "tests", ".git", ".venv", ".vllm")  # at the project's root
AS_OWNER = "as the user who owns it, or with sudo"
FEWEST_PARTS = 3  # of a directory to be emptied: / and /usr never are


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


@dataclass(frozen=True)
class Freed:
    """`size` in bytes that were freed in `where`, or would be, in so many `files`."""

    where: str
    size: int
    files: int
    dry: bool

    def __str__(self) -> str:
        done = "would be freed" if self.dry else "freed"
        return f"{self.where}: {mib(self.size)} {done}, {self.files} files"


def clear_operators(settings: Settings, *, dry_run: bool) -> Freed:
    """Empty ASR_OP_CACHE_DIR. A link in it is removed, not followed.

    Raises UsageError where it is not set, or is no directory to be emptied, and KitError where a server runs, which may
    be reading from it.
    """
    if settings.op_cache_dir is None:
        raise UsageError("ASR_OP_CACHE_DIR", "is not set, so where CANN keeps compiled operators is not known")
    named = under_project(settings.op_cache_dir)
    directory = named.resolve()
    if _holds_more(directory, settings):
        raise UsageError("ASR_OP_CACHE_DIR", f"{named} holds more than compiled operators", "remove them by hand")
    if named.exists() and not directory.is_dir():
        raise UsageError("ASR_OP_CACHE_DIR", f"{named} is a file, expected a directory")
    holder = find_listener(settings.host, settings.port)  # a container's server has no lock
    if not dry_run and (holder or state.is_locked(state.state_files(settings).lock)):
        reason = f"may be in use by the server on port {settings.port}{f': {holder}' if holder else ''}"
        raise KitError(shown(named), reason, "stop that, then again")
    return _clear(shown(named), _inside(directory), dry_run=dry_run)


def clear_downloads(settings: Settings, *, dry_run: bool) -> Freed:
    """Remove what interrupted fetches left, and what the hubs' clients keep beside the weights in the project.

    Weights that a fetch was about to replace come back first. Raises KitError where a fetch is at work.
    """
    spot = place(settings, catalog.load())
    where = f"{shown(spot.fetching)}, {shown(spot.directory.parent)}/*/{{{','.join(CLIENTS)}}}"
    if dry_run or not spot.fetching.is_dir():
        return _clear(where, _leftovers(spot), dry_run=dry_run)
    with workshop(spot):
        for bench in (path for path in _inside(spot.fetching) if path.is_dir()):
            Workshop(bench).settle(spot.directory.parent / bench.name)
        return _clear(where, _leftovers(spot), dry_run=False)


def clear_cann_log(settings: Settings, *, dry_run: bool) -> Freed:
    """Remove the logs that CANN wrote below ASR_OUT_DIR. What a running server has open is freed when it ends.

    Raises KitError where they are another user's, as a container's are.
    """
    where = under_project(settings.out_dir)
    try:
        folders = directories(settings)
        paths = [path for folder in folders for path in _inside(folder)]
    except PermissionError as error:
        raise KitError(str(error.filename), f"cannot be read: {error.strerror}", AS_OWNER) from None
    named = ", ".join(map(shown, folders)) or f"{shown(where)}/**/{FOLDER}"
    return _clear(named, paths, dry_run=dry_run)


def clear_device(settings: Settings, *, dry_run: bool) -> str:
    """Empty the device cache of the server on the settings' port; where none runs, that of this process. Returns what
    there is to say of it.

    Raises KitError where there is a server that does not do it: it loads its model, it wants another key, its engine
    has the model in another process.
    """
    server = f"the server on port {settings.port}"
    told = local_client.call_server(settings, "GET" if dry_run else "POST", "/admin/cache")
    if told is not None:
        try:
            return f"{Emptied(**told)} ({server})"
        except TypeError:
            raise KitError(server, "is of another version of the kit", "invoke restart") from None
    if state.is_locked(state.state_files(settings).lock):
        raise KitError(server, "does not answer", "invoke status")
    if settings.engine_name == "vllm":
        return f"nothing to free: no server runs on port {settings.port}, and vLLM's memory ends with its processes"
    device = open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile)
    return f"{empty(device, dry_run=dry_run)} (this process, as no server runs on port {settings.port})"


def _holds_more(directory: Path, settings: Settings) -> bool:
    """Whether a directory is, or holds, what is no cache: the kit or a part of it, its output, a home, the model."""
    above = (
        PROJECT,
        Path.home(),
        Path.cwd(),
        under_project(settings.out_dir).resolve(),
        place(settings, catalog.load()).directory,
    )
    kit = any(directory.is_relative_to(PROJECT / name) for name in KIT)
    return len(directory.parts) < FEWEST_PARTS or kit or any(path.is_relative_to(directory) for path in above)


def _leftovers(spot: ModelLocation) -> list[Path]:
    found = [path for path in _inside(spot.fetching) if path.name != LOCK]
    models = spot.directory.parent
    if models.is_relative_to(PROJECT) and models != PROJECT:
        folders = [
            path for path in _inside(models) if path != spot.fetching and path.is_dir() and not path.is_symlink()
        ]
        caches = [folder / name for folder in folders for name in CLIENTS]
        found += [path for path in caches if path.is_dir() and not path.is_symlink()]
    return found


def _inside(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _clear(where: str, paths: Iterable[Path], *, dry_run: bool) -> Freed:
    """Remove files and trees, or only count them. Raises KitError where one cannot be removed."""
    size = files = 0
    for path in paths:
        for status in _entries(path):
            files += 1
            size += status.st_size if status.st_nlink == 1 else 0  # a second name of a file that stays frees nothing
        if dry_run:
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            reason = f"cannot be removed: {error.strerror}"
            raise KitError(str(error.filename or path), reason, AS_OWNER) from None
    return Freed(where, size, files, dry_run)


def _entries(path: Path) -> list[os.stat_result]:
    """Files and links below a path, or the path itself; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return [path.lstat()]
    return [Path(folder, name).lstat() for folder, _, names in os.walk(path) for name in names]
