"""Directories that the kit makes for what it writes."""

from pathlib import Path

MODE = 0o700  # transcripts, logs and records are for who runs the kit


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are not there, for their owner alone; one that is there stays as it is.

    Raises OSError.
    """
    if not directory.parent.exists():
        make_private(directory.parent)
    directory.mkdir(mode=MODE, exist_ok=True)
