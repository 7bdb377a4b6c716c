"""The hubs behind one small interface: list a repository's files, open one of them from any byte on.

The clients of Hugging Face and ModelScope do the talking: addresses, tokens, redirects, refusals. What they are not
used for is writing files. Their snapshot functions each lack something that a host in a machine room needs:
huggingface_hub 0.36 drops up to 10 MB with each cut, gives up at a 429, and goes past mirrors where hf_xet is
installed; modelscope-hub 0.5 gives a file one hour; both keep files in HOME. `transfer` does that once, for all four.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from env.errors import KitError, UsageError
from env.settings import Settings
from runtime.weights.catalog import Catalog
from runtime.weights.lockfile import LockedModel, Manifest

CLIENTS = {"huggingface": "huggingface_hub", "modelscope": "modelscope_hub", "git-lfs": "dulwich"}
TOKEN = re.compile(r"[!-~]+")
LIBRARY = "qwen3-asr-kit"
CONNECT, READ = 10.0, 60.0  # seconds to connect, and without a byte
TIMEOUT = (CONNECT, READ)


@dataclass(frozen=True)
class Repository:
    """A repository on a hub; `endpoint` without a slash at its end, `revision` empty for the hub's default.
    `listed_by`: what says which files it must have, where that is not the hub itself."""

    hub: str
    endpoint: str
    repo: str
    revision: str
    token: SecretStr | None = None
    listed_by: str = ""

    def __str__(self) -> str:
        return f"{self.repo} on {self.hub} ({self.endpoint})"

    @property
    def secret(self) -> str:
        """The token itself, empty without one."""
        return self.token.get_secret_value() if self.token else ""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a hub: its path there, its size in bytes, and its `sha256` or git's name for it (`blob`), in hex; each
    empty where the hub does not tell."""

    name: str
    size: int
    sha256: str = ""
    blob: str = ""


@dataclass(frozen=True)
class RepositoryListing:
    """A repository's files, and the `commit` that its revision is; empty where the hub does not tell."""

    commit: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True)
class Body:
    """A file's bytes from `start` on, in pieces."""

    start: int
    pieces: Iterator[bytes]


class Opener(Protocol):
    """Whatever has files; raises TransientError for what may pass, and KitError for what will not."""

    source: Repository

    def open(self, file: RemoteFile, start: int) -> AbstractContextManager[Body]:
        """The file's bytes from `start` on, or from the beginning where the hub cannot do that. From many threads."""


class Hub(Opener, Protocol):
    """A repository on a hub, failing in the same ways."""

    def files(self) -> RepositoryListing:
        """The repository's files."""


def source(settings: Settings, facts: Catalog, repo: str, entry: LockedModel | None) -> Repository:
    """Where `repo` is to be fetched from; `entry` is what weights.lock says of it.

    Raises UsageError where the address is missing or holds a password, or the token cannot be one.
    """
    endpoint = settings.hub_endpoint or facts.hubs.get(settings.hub)
    if endpoint is None:
        advice = "set it to the address up to the folder that holds the repository's name"
        raise UsageError("ASR_HUB_ENDPOINT", f"is needed for ASR_HUB={settings.hub}", advice)
    if "@" in urlsplit(endpoint).netloc:
        raise UsageError("ASR_HUB_ENDPOINT", "holds a user or a password", "put the token into ASR_HUB_TOKEN")
    token = settings.hub_token
    if token and not TOKEN.fullmatch(token.get_secret_value()):
        raise UsageError("ASR_HUB_TOKEN", "holds spaces or letters that no token has", "copy it again")
    revision = settings.hub_revision
    if revision is None and entry is not None and entry.hub == settings.hub:
        revision = entry.commit or entry.revision
    if revision is None and repo in facts.models:
        revision = facts.models[repo].revisions.get(settings.hub)
    return Repository(settings.hub, endpoint.rstrip("/"), repo, revision or "", token)


def connect(source: Repository, *, manifest: Manifest, scratch: Path) -> Hub:
    """The hub of `source`. `manifest` lists the files for a hub that cannot; a client may keep files in `scratch`.

    Raises KitError where the client is missing, or a list is needed and there is none.
    """
    package = CLIENTS.get(source.hub)
    if package and find_spec(package) is None:
        raise KitError(
            package.replace("_", "-"), f"is not installed, and ASR_HUB={source.hub} needs it", "make install"
        )
    if source.hub == "huggingface":
        from runtime.weights.hubs.huggingface import HuggingFace

        return HuggingFace(source)
    if source.hub == "modelscope":
        from runtime.weights.hubs.modelscope import ModelScope

        return ModelScope(source, scratch)
    if source.hub == "git-lfs":
        from runtime.weights.hubs.gitlfs import GitLfs

        return GitLfs(source)
    from runtime.weights.hubs.http import Mirror

    if not manifest:
        reason = "plain files cannot be listed, and neither weights.lock nor env/weights.toml says which there are"
        raise KitError(str(source), reason, "put weights.lock in place, from where the weights were first fetched")
    return Mirror(source, manifest)
