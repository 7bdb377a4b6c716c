"""Files that are there whole or not at all."""

import os
import tempfile
from pathlib import Path

from env.errors import KitError

MODE = 0o700  # transcripts, logs and records are for who runs the kit


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are not there, for their owner alone; one that is there stays as it is.

    Raises OSError.
    """
    if not directory.parent.exists():
        make_private(directory.parent)
    directory.mkdir(mode=MODE, exist_ok=True)


def write_whole(path: Path, content: str, *, mode: int = 0o666) -> None:
    """Write a text file by way of a temporary one beside it, so that no reader, and no interruption, leaves a part.

    `mode` is narrowed by the umask, as for any new file; directories that are not there are made for their owner alone.

    Raises KitError where the directory or the file cannot be written.
    """
    try:
        make_private(path.parent)
        handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)  # no longer than a long name is
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
            temporary.chmod(mode & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise KitError(str(path), f"cannot be written: {error.strerror}") from None


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
