"""A directory of wheels on this host, where a build can see it."""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from env.errors import KitError
from env.sources import under_project

VARIABLE = "PIP_FIND_LINKS"
LOOPBACK = "127.0.0.1"
FIRST_PORT, PORTS = 20000, 10000  # below those that systems hand out on their own


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """pip tells what it fetches."""


@contextmanager
def find_links(value: str) -> Iterator[str]:
    """PIP_FIND_LINKS as a build can use it: of what it names, a directory is served on loopback, which a build on the
    host's network reaches. Yields the new value, empty for an empty one.

    Raises KitError where a directory does not exist.
    """
    servers: list[ThreadingHTTPServer] = []
    try:
        words = []
        for word in value.split():
            if "://" in word:
                words.append(word)
                continue
            directory = under_project(word)
            if not directory.is_dir():
                raise KitError(VARIABLE, f"{word} is no directory", "name one that holds wheels, or an address")
            server = _listen(directory)
            threading.Thread(target=server.serve_forever, name=f"wheels {directory}", daemon=True).start()
            servers.append(server)
            words.append(f"http://{LOOPBACK}:{server.server_address[1]}/")
        yield " ".join(words)
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _listen(directory: Path) -> ThreadingHTTPServer:
    """A server on a port that is the same for the same directory: a build's cache counts on its arguments."""
    handler = partial(_Quiet, directory=str(directory))
    port = FIRST_PORT + zlib.crc32(bytes(directory)) % PORTS
    try:
        return ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError:
        return ThreadingHTTPServer((LOOPBACK, 0), handler)
