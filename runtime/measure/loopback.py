"""The HTTP API on loopback, in this process, and a client for it that costs next to nothing."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection

from env.errors import KitError
from runtime.server.app import create_app
from runtime.server.http import listening
from runtime.server.service import Service
from runtime.server.state import Life
from runtime.transcriber import Transcriber

ADDRESS = "127.0.0.1"
PATIENCE = 600.0  # seconds for an answer


@dataclass(frozen=True)
class Serving:
    """A server that is ready: its port, and what transcribes for it."""

    port: int
    service: Service


@contextmanager
def serving(transcriber: Transcriber) -> Iterator[Serving]:
    """Serve with a transcriber until the end of the block, without keys."""
    life = Life()
    with listening(create_app(life), host=ADDRESS, port=0) as listener:
        service = Service(transcriber)
        life.ready(service)
        try:
            yield Serving(listener.port, service)
        finally:
            listener.call(service.give_up)
            service.close()


class Client:
    """One connection, which is kept, and one request at a time on it."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(ADDRESS, port, timeout=PATIENCE)

    def send(self, file: bytes) -> None:
        """Ask for the transcript of a file."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n\r\n'
        body = head.encode() + file + f"\r\n--{boundary}--\r\n".encode()
        form = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        self._connection.request("POST", "/v1/audio/transcriptions", body, form)

    def receive(self) -> str:
        """The text. Raises KitError where the server answers anything else."""
        with self._connection.getresponse() as answer:
            content = answer.read().decode()
            if answer.status != 200:
                raise KitError("the server", f"answered {answer.status}: {content}")
        return str(json.loads(content)["text"])

    def transcribe(self, file: bytes) -> str:
        """Ask, and wait for the text."""
        self.send(file)
        return self.receive()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
