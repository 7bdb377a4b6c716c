"""GitCode, and any other git server with git-lfs.

dulwich fetches the newest commit, which holds small files and, for large ones, pointers (the git-lfs specification's
name for a file with size and sha256). Those are then fetched by git-lfs's batch API, transfer adapter basic. Neither
git nor git-lfs need be installed, and the token stays in this process.
"""

import base64
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from env.errors import KitError
from runtime.weights.hubs import LIBRARY, READ, TIMEOUT, Body, RemoteFile, Repository, RepositoryListing
from runtime.weights.hubs.http import CHECK, TransientError, opened, refusal, told
from runtime.weights.lockfile import Digest

if TYPE_CHECKING:
    from dulwich.repo import MemoryRepo

USER = "oauth2"  # beside a token, git servers take any name or this one
MEDIA = "application/vnd.git-lfs+json"
MOST_POINTER = 1024  # bytes, of the git-lfs specification
COMMIT = re.compile(r"[0-9a-f]{40}")


class GitLfs:
    """A repository at <endpoint>/<owner>/<name>.git."""

    def __init__(self, source: Repository) -> None:
        self.source = source
        self._url = f"{source.endpoint}/{source.repo}.git"
        self._small: dict[str, bytes] = {}

    def files(self) -> RepositoryListing:
        """The files of the newest commit of the revision, which may be a branch, a tag or a commit."""
        self._check()
        with _readable(self.source):
            repository, commit = self._fetched()
            tree = repository[repository[commit].tree]  # type: ignore[attr-defined]
            contents = dict(_blobs(repository, tree))
        files = []
        for name, content in contents.items():
            files.append(_pointed(name, content) or self._kept(name, content))
        return RepositoryListing(commit.decode(), tuple(files))

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        """The file's bytes: at hand for small ones, else from where the batch API says they are."""
        if file.name in self._small:
            yield Body(start, iter((self._small[file.name][start:],)))
            return
        action = self._action(file)
        known = {str(key): str(value) for key, value in (action.get("header") or {}).items()}
        if not known and _origin(action["href"]) == _origin(self._url):
            known = self._authorization()
        with opened(self.source, action["href"], file, start, **known) as found:
            yield found

    def _fetched(self) -> "tuple[MemoryRepo, bytes]":
        """The commit with its tree and blobs, without history."""
        from dulwich.client import HttpGitClient
        from dulwich.config import ConfigFile
        from dulwich.objects import Tag
        from dulwich.repo import MemoryRepo

        client = HttpGitClient(
            self.source.endpoint,
            config=ConfigFile(),  # not the operator's own
            username=USER if self.source.secret else None,
            password=self.source.secret or None,
            timeout=READ,
            quiet=True,
        )
        wanted: list[bytes] = []

        def choose(refs: Mapping[bytes, bytes], **_: Any) -> list[bytes]:
            wanted.append(self._chosen(refs))
            return wanted

        repository = MemoryRepo()
        client.fetch(urlsplit(self._url).path, repository, determine_wants=choose, depth=1)  # type: ignore[arg-type]
        (commit,) = wanted
        while isinstance(found := repository[commit], Tag):
            commit = found.object[1]
        return repository, commit

    def _chosen(self, refs: Mapping[bytes, bytes]) -> bytes:
        revision = self.source.revision
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}") if revision else ("HEAD",):
            if found := refs.get(name.encode()):
                return found
        if COMMIT.fullmatch(revision):
            return revision.encode()
        raise KitError(str(self.source), f"has no revision {revision or 'HEAD'}", CHECK)

    def _kept(self, name: str, content: bytes) -> RemoteFile:
        self._small[name] = content
        digest = Digest(len(content))
        digest.update(content)
        return RemoteFile(name, len(content), sha256=digest.record.sha256)

    def _action(self, file: RemoteFile) -> dict[str, Any]:
        """Where the batch API says that the file's bytes are: an `href`, and `header`s to send."""
        wanted = {"oid": file.sha256, "size": file.size}
        question: dict[str, Any] = {"operation": "download", "transfers": ["basic"], "objects": [wanted]}
        sent = {"Accept": MEDIA, "Content-Type": MEDIA, "User-Agent": LIBRARY, **self._authorization()}
        with told(self.source):
            response = requests.post(
                f"{self._url}/info/lfs/objects/batch", json=question, headers=sent, timeout=TIMEOUT
            )
            if not response.ok:
                retry_after = response.headers.get("Retry-After")
                raise refusal(self.source, response.status_code, retry_after, what=file.name)
            answer = response.json()
        try:
            (found,) = answer["objects"]
            if "error" in found:
                raise refusal(self.source, int(found["error"]["code"]), what=file.name)
            action: dict[str, Any] = found["actions"]["download"]
            action["href"] = str(action["href"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise KitError(f"{file.name} of {self.source}", "git-lfs answers with no address for it", CHECK) from None
        return action

    def _authorization(self) -> dict[str, str]:
        if not self.source.secret:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{USER}:{self.source.secret}".encode()).decode()}

    def _check(self) -> None:
        """Ask what dulwich will ask first: it closes no connection that brought a refusal, and drops a hub's wish to
        wait."""
        sent = {"User-Agent": LIBRARY, **self._authorization()}
        with told(self.source):
            response = requests.get(
                f"{self._url}/info/refs?service=git-upload-pack", headers=sent, stream=True, timeout=TIMEOUT
            )
        with closing(response):
            if not response.ok:
                raise refusal(self.source, response.status_code, response.headers.get("Retry-After"))


@contextmanager
def _readable(source: Repository) -> Iterator[None]:
    """dulwich's failures in the kit's words."""
    from dulwich.errors import ChecksumMismatch, FileFormatException, GitProtocolError, NotGitRepository

    unreadable = (NotGitRepository, ValueError, KeyError, AssertionError, ChecksumMismatch, FileFormatException)
    try:
        yield
    except GitProtocolError as error:
        words = "".join(letter for letter in str(error) if letter.isprintable())
        raise TransientError(f"git failed: {words}") from None
    except (*unreadable, zlib.error) as error:
        reason = f"sends no git repository that can be read ({type(error).__name__})"
        raise KitError(str(source), reason, CHECK) from None


def _blobs(repository: "MemoryRepo", tree: Any, folder: str = "") -> Iterator[tuple[str, bytes]]:
    """Every file under `tree` with its contents; links and submodules are none."""
    for entry in tree.items():
        name = folder + entry.path.decode("utf-8", "replace")
        if stat.S_ISDIR(entry.mode):
            yield from _blobs(repository, repository[entry.sha], name + "/")
        elif stat.S_ISREG(entry.mode):
            yield name, repository[entry.sha].as_raw_string()


def _pointed(name: str, content: bytes) -> RemoteFile | None:
    """The large file that a pointer stands for; None for contents that are no pointer."""
    from dulwich.lfs import LFSPointer

    pointer = LFSPointer.from_bytes(content) if len(content) < MOST_POINTER else None
    return RemoteFile(name, pointer.size, sha256=pointer.oid.lower()) if pointer and pointer.is_valid_oid() else None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
