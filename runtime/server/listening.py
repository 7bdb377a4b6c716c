"""The application on a port, in a thread of its own, so that the main thread is free to load the model."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from runtime.errors import KitError

BACKLOG = 2048  # connections that wait to be accepted
LAST_WORDS = 5.0  # seconds for what is still being sent when the port closes


@dataclass(frozen=True)
class Listener:
    """A server that answers: its port, and the event loop that it runs on."""

    port: int
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], Any]) -> None:
        """Have `function` called on the event loop."""
        self.loop.call_soon_threadsafe(function)


@contextmanager
def listening(app: ASGIApp, *, host: str, port: int) -> Iterator[Listener]:
    """Answer with `app` until the end of the block; what is being answered then has 5 s left.

    Port 0 is one that is free. Raises KitError where the address cannot be used.
    """
    with _bound(host, port) as listener:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="websockets-sansio",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(LAST_WORDS),
        )
        server = uvicorn.Server(config)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(loop, server, listener), name="http", daemon=True)
        thread.start()
        try:
            yield Listener(listener.getsockname()[1], loop)
        finally:
            server.should_exit = True
            thread.join()


def _run(loop: asyncio.AbstractEventLoop, server: uvicorn.Server, listener: socket.socket) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(server.serve(sockets=[listener]))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def _bound(host: str, port: int) -> socket.socket:
    # With the protocol by name, for asyncio to see that this is TCP and turn off Nagle's algorithm: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = f"cannot be listened on: {error.strerror}"
        raise KitError(f"{host}:{port}", reason, "set ASR_PORT to a free port, or end what holds it") from None
    return listener
