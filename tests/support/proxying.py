"""An HTTP proxy on loopback that knows names which nobody else does: what stands between a company and the internet."""

import http.server
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PIECE = 1 << 16  # bytes a read


class Handler(http.server.BaseHTTPRequestHandler):
    """Forwards a GET in absolute form, and what comes after a CONNECT."""

    protocol_version = "HTTP/1.1"
    server: "Proxy"

    def do_GET(self) -> None:
        self.close_connection = True
        if not self._admitted():
            return
        parts = urlsplit(self.path)
        address = self.server.hosts.get(parts.netloc)
        if address is None:
            self.send_error(502, "Bad Gateway")
            return
        with socket.create_connection(address) as onward:
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            headers = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            onward.sendall(f"GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
            while piece := onward.recv(PIECE):
                self.wfile.write(piece)

    def do_CONNECT(self) -> None:
        self.close_connection = True
        if not self._admitted():
            return
        address = self.server.hosts.get(self.path)
        if address is None:
            self.send_error(403, "Forbidden")
            return
        with socket.create_connection(address) as onward:
            self.send_response(200, "Connection established")
            self.end_headers()
            back = threading.Thread(target=_copy, args=(onward, self.connection))
            back.start()
            _copy(self.connection, onward)
            back.join()

    def _admitted(self) -> bool:
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        if self.server.credentials in (None, self.headers["Proxy-Authorization"]):
            return True
        self.send_error(407)
        return False

    def log_message(self, *_: Any) -> None:
        pass


class Proxy(http.server.ThreadingHTTPServer):
    """Lives while the test does. `hosts` says where each `name` or `name:port` is; `requests` are method, target and
    headers of each request."""

    daemon_threads = False

    def __init__(self, hosts: Mapping[str, tuple[str, int]], credentials: str | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hosts, self.credentials = hosts, credentials
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """The client has hung up: so it may."""


@contextmanager
def proxying(hosts: Mapping[str, tuple[str, int]], *, credentials: str | None = None) -> Iterator[Proxy]:
    """`credentials`: the Proxy-Authorization that it wants."""
    with Proxy(hosts, credentials) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


def forget_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the end of the test no variable names a proxy."""
    for name in [name for name in os.environ if name.lower() in VARIABLES]:
        monkeypatch.delenv(name)


def closed_port() -> int:
    """One at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def dead_proxies() -> dict[str, str]:
    """Variables that name a proxy at which nobody listens, for every URL there is."""
    names = [name for name in VARIABLES if name != "no_proxy"]
    values = dict.fromkeys([*names, *map(str.upper, names)], f"http://127.0.0.1:{closed_port()}")
    return {**values, "no_proxy": "", "NO_PROXY": ""}


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends; then the target is told."""
    try:
        while piece := source.recv(PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # the target has hung up
        pass
