"""The health endpoints, which answer from the first moment on."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from runtime.errors import KitError


@dataclass
class Health:
    """How far the server is: `stage` in words, `ready` once it has transcribed."""

    stage: str = "starting"
    ready: bool = False


@contextmanager
def health_endpoint(host: str, port: int, health: Health) -> Iterator[int]:
    """Answer `GET /health/live` with 200, and `GET /health/ready` with 200 once `health` is ready, else with 503.

    Yields the port (for port 0, the one that was free). Raises KitError where the address cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for a request to arrive

        def do_GET(self) -> None:
            ready = self.path == "/health/live" or (self.path == "/health/ready" and health.ready)
            known = self.path in ("/health/live", "/health/ready")
            answer = {"status": "ready" if health.ready else "starting", "stage": health.stage}
            body = json.dumps(answer if known else {"error": f"there is no {self.path}"}).encode()
            self.send_response(200 if ready else 503 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A probe every ten seconds is no news."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        reason = f"cannot be listened on: {error.strerror}"
        raise KitError(f"{host}:{port}", reason, "set ASR_PORT to a free port, or end what holds it") from None
    with server:
        thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
