"""Messages on a stream socket: four bytes of length, then JSON; a request has the files of its call beside it."""

import socket
from collections.abc import Sequence

LENGTH = 4  # bytes
PIECE = 1 << 16  # bytes read at once
MOST_FILES = 2


def send(connection: socket.socket, body: bytes, files: Sequence[int] = ()) -> None:
    """Send a message, with descriptors of open files if it has any."""
    message = len(body).to_bytes(LENGTH, "big") + body
    sent = socket.send_fds(connection, [message], files) if files else 0
    connection.sendall(message[sent:])


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its descriptors. Raises EOFError where the other side is gone."""
    received, files, *_ = socket.recv_fds(connection, PIECE, MOST_FILES)
    parts = bytearray(received)
    while received and (len(parts) < LENGTH or len(parts) < LENGTH + int.from_bytes(parts[:LENGTH], "big")):
        received = connection.recv(PIECE)
        parts += received
    if not received:
        raise EOFError
    return bytes(parts[LENGTH:]), files
