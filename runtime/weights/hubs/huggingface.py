"""Hugging Face and its mirrors, through huggingface_hub."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from env.errors import KitError
from runtime.weights.hubs import LIBRARY, READ, TIMEOUT, Body, RemoteFile, Repository, RepositoryListing
from runtime.weights.hubs.http import CHECK, body, headers, refusal, told


class HuggingFace:
    """A repository there. Large files are in git-lfs, with their sha256; of the small ones it tells git's name."""

    def __init__(self, source: Repository) -> None:
        self.source = source
        self._commit = source.revision

    def files(self) -> RepositoryListing:
        """The repository's files, and the commit that the revision is."""
        # Read when the library is first imported. The token is only ever the one of the settings.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

        api = HfApi(endpoint=self.source.endpoint, token=self.source.secret or False, library_name=LIBRARY)
        with told(self.source):
            try:
                info = api.model_info(
                    self.source.repo, revision=self.source.revision or None, files_metadata=True, timeout=READ
                )
            except HfHubHTTPError as error:
                answer = error.response
                if answer is None:
                    raise KitError(str(self.source), str(error), CHECK) from None
                raise refusal(self.source, answer.status_code, answer.headers.get("Retry-After")) from None
            except OfflineModeIsEnabled:
                raise KitError("HF_HUB_OFFLINE", "forbids huggingface_hub to fetch anything", "unset it") from None
            except HFValidationError:
                raise KitError("ASR_HUB_REPO", f"{self.source.repo} is no name that Hugging Face allows") from None
            except (KeyError, TypeError, AttributeError):
                raise KitError(str(self.source), "answers with something that is not a hub's", CHECK) from None
        self._commit = info.sha or self._commit
        return RepositoryListing(
            info.sha or "",
            tuple(
                RemoteFile(
                    sibling.rfilename,
                    sibling.size or 0,
                    sha256=sibling.lfs.sha256 if sibling.lfs else "",
                    blob="" if sibling.lfs else sibling.blob_id or "",
                )
                for sibling in info.siblings or ()
            ),
        )

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        """The file's bytes, of the commit that was listed."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session

        url = hf_hub_url(self.source.repo, file.name, revision=self._commit, endpoint=self.source.endpoint)
        known = build_hf_headers(token=self.source.secret or False, library_name=LIBRARY)
        with told(self.source):
            response = get_session().get(url, headers=headers(start, **known), stream=True, timeout=TIMEOUT)
        with closing(response):
            yield body(self.source, response, file, start)
