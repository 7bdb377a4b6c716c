"""The HTTP server: uvicorn in a thread of its own, so that the main thread is free to load the model."""

import asyncio
import errno
import fcntl
import logging
import resource
import socket
import termios
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from env.errors import KitError
from runtime.host.tls import Tls
from runtime.server.protocol import BoundedWebSocket, FairReading, PatientProtocol
from runtime.urls import ANY_IPV6, addresses, in_url

BACKLOG = 2048  # connections that wait to be accepted
# Of a WebSocket. The most audio of an event, 15 MiB, is 20 MiB in base64. More is answered with an error; a message
# larger than this closes the connection with code 1009.
MAX_MESSAGE_BYTES = 32 << 20
SHUTDOWN_TIMEOUT = 5.0  # seconds for what is still being sent when the port closes
# Errors of binding on a machine without that address, or without its family.
NO_ADDRESS_ERRNOS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# Errors of accepting when descriptors or memory for one more connection are lacking.
SHORTAGE_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SHORTAGE_OVER_SECONDS = 3.0  # without such an error; asyncio tries once a second
TLS_CLOSE_TIMEOUT = 0.5  # seconds for clients to end TLS in their turn


log = logging.getLogger(__name__)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """False for a message of uvicorn's that is wrong: that a WebSocket which was refused with an answer got none."""
    return record.msg != "ASGI callable returned without completing handshake."


@dataclass(frozen=True)
class HttpServer:
    """A running server: its port, and its event loop."""

    port: int
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], Any]) -> None:
        """Call `function` on the event loop."""
        self.loop.call_soon_threadsafe(function)


@contextmanager
def run_http_server(app: ASGIApp, *, host: str, port: int, tls: Tls | None = None) -> Iterator[HttpServer]:
    """Serve `app` until the block ends, over https if `tls` is given; answers in progress then have 5 s left.

    `host` is an address, or localhost for those of both families; port 0 takes a free one. Raises KitError if the
    address cannot be used.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(bound) for bound in _bind_all(host, port)]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http=PatientProtocol,
            ws=cast(Any, partial(BoundedWebSocket, FairReading())),
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # 32 KiB may unfold to the largest message, on the event loop
            # A client whose audio waits to be decoded is not read from, so its pong may be late. One that is gone
            # acknowledges no ping; then the system ends the connection (protocol.py).
            ws_ping_timeout=None,
            backlog=1,  # connections that asyncio accepts at a time, and at which it fails where no descriptor is left
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(SHUTDOWN_TIMEOUT),
        )
        logging.getLogger("uvicorn.error").addFilter(_is_worth_logging)
        config.load()
        config.ssl = tls.context if tls else None  # its own way to make one cannot say what is wrong with a certificate
        server = _Server(config)
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(_Shortage())
        thread = threading.Thread(target=_run, args=(loop, server, sockets), name="http", daemon=True)
        thread.start()
        try:
            yield HttpServer(sockets[0].getsockname()[1], loop)
        finally:
            server.should_exit = True
            thread.join()


class _Shortage:
    """Without a free descriptor, asyncio tries to accept connections once a second and reports each failure. This
    reports the first one, and the recovery."""

    def __init__(self) -> None:
        self._recovery: asyncio.TimerHandle | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle what asyncio's own code raises."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in SHORTAGE_ERRNOS and "socket" in context):
            loop.default_exception_handler(context)
            return
        if self._recovery:
            self._recovery.cancel()
        else:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            log.error("connections wait to be accepted: %s; this process may open %d", error.strerror, limit)
        self._recovery = loop.call_later(SHORTAGE_OVER_SECONDS, self._recovered)

    def _recovered(self) -> None:
        self._recovery = None
        log.info("connections are accepted again")


class _Server(uvicorn.Server):
    """Waits, when it stops, for data that is being sent, but not for clients to close: TLS asks them to, and a client
    that keeps an idle connection does not read."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen with BACKLOG, which asyncio has lowered to config.backlog."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has just made it config.backlog

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections; abort those that do not close in time."""
        asyncio.get_running_loop().call_later(TLS_CLOSE_TIMEOUT, self._abort_closing)
        await super().shutdown(sockets)

    def _abort_closing(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport.is_closing() and not _unsent(connection.transport):
                connection.transport.abort()


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes that the client's system has not acknowledged; if 0, none wait in this process either."""
    count = array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, count)
    return count[0]


def _run(loop: asyncio.AbstractEventLoop, server: uvicorn.Server, sockets: list[socket.socket]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(server.serve(sockets=sockets))
        loop.run_until_complete(_cancel_remaining())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _cancel_remaining() -> None:
    """Cancel connections in a TLS handshake, which uvicorn does not know of."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def _bind_all(host: str, port: int) -> list[socket.socket]:
    """Bind a socket for each address of `host`, skipping addresses that this machine lacks as long as one remains."""
    found: list[socket.socket] = []
    missing: list[OSError] = []
    for address in addresses(host):
        try:
            found.append(_bind(address, found[0].getsockname()[1] if found else port))
        except OSError as error:
            if error.errno not in NO_ADDRESS_ERRNOS:
                for listener in found:
                    listener.close()
                advice = "set ASR_PORT to a free port, or end what holds it"
                raise _bind_error(host, port, error, advice) from None
            missing.append(error)
        if found and host == ANY_IPV6:  # which serves IPv4 too
            break
    if not found:
        raise _bind_error(host, port, missing[0], "set ASR_HOST to an address of this machine, see: ip address")
    return found


def _bind_error(host: str, port: int, error: OSError, advice: str) -> KitError:
    return KitError(in_url(host, port), f"cannot be listened on: {error.strerror}", advice)


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # With the protocol by name, for asyncio to see that this is TCP and turn off Nagle's algorithm: 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # whatever net.ipv6.bindv6only says
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != ANY_IPV6))
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
