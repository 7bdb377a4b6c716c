"""ModelScope and its mirrors, through modelscope-hub: what the package modelscope itself uses, without the two seconds
and the many modules that importing modelscope takes."""

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from env.errors import KitError
from runtime.weights.hubs import Body, RemoteFile, Repository, RepositoryListing
from runtime.weights.hubs.http import CHECK, body, failed, headers, refusal, told, untrusted

if TYPE_CHECKING:
    from modelscope_hub import HubApi

DEFAULT_REVISION = "master"


class ModelScope:
    """A repository there; every file comes with its sha256. What the client wants to keep goes into `scratch`."""

    def __init__(self, source: Repository, scratch: Path) -> None:
        self.source, self._scratch = source, scratch
        self._revision = source.revision or DEFAULT_REVISION
        # Read when the client is first imported: `transfer` is the patient one, and says so.
        os.environ.setdefault("MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS", "1")

    @cached_property
    def _api(self) -> "HubApi":
        # The client makes up an id for its user agent and writes it into its home, which would be under HOME.
        from modelscope_hub import HubApi, HubConfig, set_default_config

        logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
        config = HubConfig(
            endpoint=self.source.endpoint,
            token=self.source.secret,
            cache_dir=self._scratch,
            config_dir=self._scratch,
        )
        set_default_config(config)
        return HubApi(config)

    def files(self) -> RepositoryListing:
        """The repository's files. The hub does not tell which commit a revision is."""
        with self._told():
            try:
                found = self._api.list_repo_files(self.source.repo, "model", revision=self._revision)
            except (KeyError, TypeError, AttributeError):
                raise KitError(str(self.source), "answers with something that is not a hub's", CHECK) from None
        files = (
            RemoteFile(file.path, file.size, sha256=(file.sha256 or "").lower()) for file in found if not file.is_dir
        )
        return RepositoryListing("", tuple(files))

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        """The file's bytes."""
        with self._told(what=file.name):
            response = self._api.legacy.download_stream(
                self.source.repo, "model", file.name, self._revision, headers=headers(start)
            )
        with closing(response):
            yield body(self.source, response, file, start)

    @contextmanager
    def _told(self, *, what: str = "") -> Iterator[None]:
        """The client's failures in the kit's words."""
        from modelscope_hub.errors import APIError, HubError, NetworkError

        try:
            with told(self.source):
                yield
        except APIError as error:
            if error.status_code is None:
                raise KitError(str(self.source), f"the client gives up: {type(error).__name__}", CHECK) from None
            raise refusal(self.source, error.status_code, getattr(error, "retry_after", None), what=what) from None
        except NetworkError as error:
            if isinstance(error.__cause__, requests.exceptions.SSLError):
                raise untrusted(self.source, error.__cause__) from None
            raise failed(error) from None
        except HubError as error:
            raise KitError(str(self.source), f"the client gives up: {error.message}") from None
