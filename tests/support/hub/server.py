"""The server: one repository, told in four ways."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub.faults import Fault, Hold
from hub.git import git

REPO = "tests/Tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = ".safetensors"  # what is in git-lfs


@dataclass(frozen=True)
class Asked:
    """A request that came: `headers` by their names in lower case, `start` where its Range begins, 0 without one."""

    method: str
    path: str
    headers: dict[str, str]
    start: int


@dataclass
class Hub:
    """A hub at `url` that holds `files`; `token` None lets everybody in. `store` is the host that git-lfs's batch API
    sends clients to, this one if empty; `listed` changes what the hub says of its files, by name.
    """

    url: str
    files: dict[str, bytes]
    token: str | None = None
    faults: list[Fault] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    store: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def starts(self, part: str) -> list[int]:
        """Where the requests for a file began, in their order."""
        return [asked.start for asked in self.requests if part in unquote(asked.path) and asked.method == "GET"]

    def next_fault(self, path: str) -> Fault | None:
        """The fault that counts for a request, once less from now on."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.match in unquote(path):
                    fault.times -= 1
                    return fault
        return None


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as one of the four hubs, by the address."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_GET(self) -> None:
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.start = int(found[1]) if found else 0
        self.hub.requests.append(
            Asked(self.command, self.path, {name.lower(): text for name, text in self.headers.items()}, self.start)
        )
        if not self._allowed():
            self.reply(b"{}", 403 if "Authorization" in self.headers else 401)
            return
        content = self._content()
        fault = self.hub.next_fault(self.path)
        if fault is not None:
            fault.happen(self, content or b"")
        elif content is None:
            self.reply(b"{}", 404)
        else:
            self.send_content(content)

    def do_POST(self) -> None:
        self.do_GET()

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        """A whole answer."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_content(
        self,
        content: bytes,
        *,
        until: int | None = None,
        pause_at: int | None = None,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """A file, from where the client asked for; `until` and `pause_at` are positions in the whole file."""
        if self.start and self.start >= len(content):
            self.reply(b"", 416, Content_Range=f"bytes */{len(content)}")
            return
        self.send_response(206 if self.start else 200)
        self.send_header("Content-Length", str(len(content) - self.start))
        self.send_header("Content-Type", self.content_type)
        self.send_header("Connection", "close")
        if self.start:
            self.send_header("Content-Range", f"bytes {self.start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if pause_at is not None:
            self.wfile.write(content[self.start : pause_at])
            pause()
            self.start = pause_at
        self.wfile.write(content[self.start : until])

    content_type = "application/octet-stream"

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if given.startswith("Basic "):
            given = "Bearer " + base64.b64decode(given[6:]).decode().partition(":")[2]
        return self.hub.token is None or "/public/" in self.path or given == f"Bearer {self.hub.token}"

    def _content(self) -> bytes | None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {key: value[0] for key, value in parse_qs(parts.query).items()}
        if path.startswith(f"/{REPO}.git/"):
            return git(self, path, parts.query)
        self.content_type = "application/json"
        if path.startswith(f"/api/models/{REPO}"):
            return self._hugging_face(path)
        if path == f"/api/v1/models/{REPO}/repo/files":
            return self._model_scope(query["Revision"])
        self.content_type = "application/octet-stream"
        if path == f"/api/v1/models/{REPO}/repo":
            return self.hub.files.get(query["FilePath"])
        if path.startswith("/public/"):
            sums = {hashlib.sha256(content).hexdigest(): content for content in self.hub.files.values()}
            return sums.get(path.rpartition("/")[2])
        return self.hub.files.get(re.sub(f"^/{REPO}/(resolve/[^/]+/)?", "", path))

    def _hugging_face(self, path: str) -> bytes | None:
        if path != f"/api/models/{REPO}" and path.rpartition("/")[2] not in ("main", COMMIT):
            return None
        siblings = []
        for name, content in self.hub.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append({**entry, **self.hub.listed.get(name, {})})
        return json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode()

    def _model_scope(self, revision: str) -> bytes | None:
        if revision not in ("master", COMMIT):
            return None
        files = [
            {
                "Name": name,
                "Path": name,
                "Type": "blob",
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
                **self.hub.listed.get(name, {}),
            }
            for name, content in self.hub.files.items()
        ]
        files.append({"Name": "assets", "Path": "assets", "Type": "tree", "Size": 0, "Sha256": ""})
        return json.dumps({"Code": 200, "Data": {"Files": files}, "Success": True}).encode()

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Lives while the test does."""

    daemon_threads = False

    def __init__(self, files: dict[str, bytes], token: str | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = Hub(f"http://127.0.0.1:{self.server_port}", files, token)

    def handle_error(self, *_: Any) -> None:
        """The client has hung up: so it may."""


@contextmanager
def serving(files: dict[str, bytes], *, token: str | None = None) -> Iterator[Hub]:
    """A hub with one repository."""
    with Server(files, token) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.hub
        finally:
            for fault in server.hub.faults:
                if isinstance(fault, Hold):
                    fault.release.set()
            server.shutdown()
            thread.join()
