"""Weights that are there already, and what may have happened to them."""

from pathlib import Path

from env.settings import Settings
from env.sources import load_settings
from hub.checkpoint import files
from hub.orders import known, needed, target
from hub.server import REPO
from runtime.weights import lockfile
from runtime.weights.lockfile import LockedModel


def put(folder: Path) -> Path:
    """The model's directory in `folder`, and beside it a lock that says what is in it."""
    directory = target(folder)
    directory.mkdir(parents=True)
    for name, content in needed(files()).items():
        (directory / name).write_bytes(content)
    records = known(files()).models[REPO].files
    lockfile.write(
        folder / "weights.lock", {REPO: LockedModel("modelscope", date="2026-01-01T00:00:00+00:00", files=records)}
    )
    return directory


def settings(folder: Path, **variables: str) -> Settings:
    """Settings for what `put` has put there."""
    return load_settings(
        {
            "ASR_MODEL": str(target(folder)),
            "ASR_WEIGHTS_LOCK": str(folder / "weights.lock"),
            "ASR_HUB_REPO": REPO,
            **variables,
        }
    )


def flip(path: Path) -> None:
    """A wrong bit."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(path: Path) -> None:
    """A byte is missing."""
    path.write_bytes(path.read_bytes()[:-1])
