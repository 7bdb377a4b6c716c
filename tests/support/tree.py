"""A copy of the project as somebody gets it who clones it: what git tracks, or would."""

import os
import shutil
import subprocess
from pathlib import Path

from env.sources import PROJECT


def clone_into(directory: Path) -> Path:
    """Copy the project; returns the copy's root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listing.stdout.decode().split("\0")):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, target, follow_symlinks=False)
    return directory


def bare_environment(**changes: str) -> dict[str, str]:
    """This process's environment, without what would reach into the copy's make and settings, and without the width of
    a terminal, which pytest's workers have."""
    reach = ("ASR_", "MAKE", "VIRTUAL_ENV", "COLUMNS")
    return {**{key: value for key, value in os.environ.items() if not key.startswith(reach)}, **changes}
