"""Messages on a stream socket: four bytes of length, then JSON; a request has the files of its call beside it."""

import socket
import time
from collections.abc import Sequence

LENGTH = 4  # bytes
PIECE = 1 << 16  # bytes read at once
MOST_FILES = 2
MOST_REPLY = 1 << 20  # bytes


def send(connection: socket.socket, body: bytes, files: Sequence[int] = ()) -> None:
    """Send a message, with descriptors of open files if it has any."""
    message = len(body).to_bytes(LENGTH, "big") + body
    sent = socket.send_fds(connection, [message], files) if files else 0
    connection.sendall(message[sent:])


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A request and its descriptors, however long it takes. Raises EOFError where the other side is gone."""
    received, files, *_ = socket.recv_fds(connection, PIECE, MOST_FILES)
    reader = ReplyReader(connection)
    if not received:
        raise EOFError
    reader.add(received)
    return reader.read(None), files


class ReplyReader:
    """Reads replies, each of which may come in pieces, before or after a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()

    def add(self, piece: bytes) -> None:
        """What has come."""
        self._received += piece

    def read(self, seconds: float | None) -> bytes:
        """The next message. Raises TimeoutError where it is not whole within so many seconds, and EOFError where it
        never will be, or is larger than any that is due; what came stays for the next call."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._is_whole:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            piece = self._connection.recv(PIECE)
            if not piece or len(self._received) > MOST_REPLY:
                raise EOFError
            self.add(piece)
        end = LENGTH + self._length
        message = bytes(self._received[LENGTH:end])
        del self._received[:end]
        return message

    @property
    def _length(self) -> int:
        return int.from_bytes(self._received[:LENGTH], "big")

    @property
    def _is_whole(self) -> bool:
        return len(self._received) >= LENGTH + self._length if len(self._received) >= LENGTH else False
