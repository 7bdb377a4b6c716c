"""Plain files over HTTP: <endpoint>/<repository>/<file>, listed by weights.lock or by what the kit knows."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

import requests

from runtime.ops.weights.hubs import LIBRARY, TIMEOUT, Body, Listing, Remote, Source
from runtime.ops.weights.hubs.answers import body, headers, told
from runtime.ops.weights.manifest import Manifest


class Mirror:
    """A folder on a web server."""

    def __init__(self, source: Source, manifest: Manifest) -> None:
        self.source, self._manifest = source, manifest

    def files(self) -> Listing:
        """What the manifest says: a web server does not list."""
        records = self._manifest.items()
        return Listing("", tuple(Remote(name, record.size, sha256=record.sha256) for name, record in records))

    @contextmanager
    def open(self, file: Remote, start: int) -> Iterator[Body]:
        """The file's bytes."""
        url = f"{self.source.endpoint}/{self.source.repo}/{quote(file.name)}"
        known = {"Authorization": f"Bearer {self.source.secret}"} if self.source.secret else {}
        with opened(self.source, url, file, start, **known) as found:
            yield found


@contextmanager
def opened(source: Source, url: str, file: Remote, start: int, **more: str) -> Iterator[Body]:
    """The bytes of `file` from `start` on, as a plain GET of `url` answers; `more` headers may hold a secret, which is
    not sent on to another host."""
    sent = headers(start, **{"User-Agent": LIBRARY, **more})
    with told(source):
        response = requests.get(url, headers=sent, stream=True, timeout=TIMEOUT)
    with closing(response):
        yield body(source, response, file, start)
