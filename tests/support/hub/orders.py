"""Settings for fetching from the hub, and what to expect of it."""

import hashlib
import threading
from multiprocessing.dummy import DummyProcess
from pathlib import Path

import pytest

from env.errors import KitError
from env.settings import Settings
from env.sources import load_settings
from hub.faults import LONGEST
from hub.server import REPO, Hub
from runtime.weights import lockfile
from runtime.weights.catalog import Catalog, PublishedModel
from runtime.weights.fetch import fetch
from runtime.weights.lockfile import LockedFile
from runtime.weights.transfer import Patience
from runtime.weights.verify import is_needed

KINDS = ("modelscope", "huggingface", "git-lfs", "http")
every_hub = pytest.mark.parametrize("kind", KINDS)
NAME = REPO.partition("/")[2]
QUICK = Patience(attempts=3, first=0)  # no pauses
SHARD = "model-00001-of-00002.safetensors"


def order(folder: Path, hub: Hub, kind: str, **variables: str) -> Settings:
    """To fetch from the hub, in the way of `kind`, into `folder`/weights."""
    return load_settings(
        {
            "ASR_MODEL": str(target(folder)),
            "ASR_WEIGHTS_LOCK": str(folder / "weights.lock"),
            "ASR_HUB": kind,
            "ASR_HUB_ENDPOINT": hub.url,
            "ASR_HUB_REPO": REPO,
            **variables,
        }
    )


def target(folder: Path) -> Path:
    """The model's directory."""
    return folder / "weights" / NAME


def needed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those of a repository's files that are fetched."""
    return {name: content for name, content in files.items() if is_needed(name)}


def known(files: dict[str, bytes]) -> Catalog:
    """Facts that know the repository's files."""
    records = {name: LockedFile(len(content), sha256(content)) for name, content in needed(files).items()}
    return Catalog(models={REPO: PublishedModel({}, records)})


def run(settings: Settings, hub: Hub, *, facts: Catalog | None = None) -> None:
    """Fetch without pauses, and wait for threads that a failure left behind. Plain files need somebody who knows
    them."""
    if facts is None:
        facts = known(hub.files) if settings.hub == "http" else Catalog()
    before = threading.enumerate()
    try:
        fetch(settings, facts=facts, patience=QUICK)
    finally:
        for thread in threading.enumerate():
            if isinstance(thread, DummyProcess) and thread not in before:
                thread.join(LONGEST)


def held(directory: Path) -> dict[str, bytes]:
    """All files in a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def sha256(content: bytes) -> str:
    """A content's sum, in hex."""
    return hashlib.sha256(content).hexdigest()


def address(kind: str, name: str, hub: Hub) -> str:
    """What only the requests for a file's bytes have in their address."""
    return sha256(hub.files[name]) if kind == "git-lfs" else name


def refusal(settings: Settings, hub: Hub, *, facts: Catalog | None = None) -> KitError:
    """Why a fetch is refused."""
    with pytest.raises(KitError) as caught:
        run(settings, hub, facts=facts)
    return caught.value


def lock_of(folder: Path) -> lockfile.LockedModel:
    """What the lock says of the hub's model."""
    return lockfile.read(folder / "weights.lock")[REPO]
