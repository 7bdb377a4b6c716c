"""The application on a port, in a thread of its own, so that the main thread is free to load the model."""

import asyncio
import errno
import fcntl
import ipaddress
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
from starlette.types import ASGIApp, Receive, Scope, Send

from env.errors import KitError
from runtime.host.tls import Tls
from runtime.server.protocol import BoundedWebSocket, FairReading, PatientProtocol
from runtime.urls import ANY_IPV6, addresses, in_url, plain

BACKLOG = 2048  # connections that wait to be accepted
# Bytes of a WebSocket's message. The most audio that realtime takes at once, 15 MiB, is 20 MiB in base64. More of it is
# answered with an error; a message larger than this closes the connection, with code 1009.
MESSAGE = 32 << 20
LAST_WORDS = 5.0  # seconds for what is still being sent when the port closes
# What binding fails with where the machine has none of the addresses of a family, or no such family at all.
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# What accepting fails with where the system lacks something for one more connection.
NO_RESOURCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
QUIET = 3.0  # seconds without such a failure, of which there is one a second, after which it is over
FAREWELL = 0.5  # seconds for clients to end TLS in their turn


log = logging.getLogger(__name__)


def _tells(record: logging.LogRecord) -> bool:
    """Of a WebSocket that was refused with an answer, uvicorn logs as an error that there was none."""
    return record.msg != "ASGI callable returned without completing handshake."


@dataclass(frozen=True)
class HttpServer:
    """A server that answers: its port, and the event loop that it runs on."""

    port: int
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], Any]) -> None:
        """Have `function` called on the event loop."""
        self.loop.call_soon_threadsafe(function)


@contextmanager
def listening(app: ASGIApp, *, host: str, port: int, tls: Tls | None = None) -> Iterator[HttpServer]:
    """Answer with `app` until the end of the block, over https if `tls` is given; what is being answered then has 5 s
    left.

    `host` is an address, or localhost for both families'; port 0 is one that is free. Raises KitError where the address
    cannot be used.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(bound) for bound in _bound(host, port)]
        config = uvicorn.Config(
            _PlainClient(app),
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http=PatientProtocol,
            ws=cast(Any, partial(BoundedWebSocket, FairReading())),
            ws_max_size=MESSAGE,
            ws_per_message_deflate=False,  # 32 KiB may unfold to the largest message, on the event loop
            # A client whose sound waits to be decoded is not read from, so its pong may be late. One that is gone takes
            # no ping; then the system gives the connection up (connections.py).
            ws_ping_timeout=None,
            backlog=1,  # connections that asyncio accepts at a time, and at which it fails where no descriptor is left
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(LAST_WORDS),
        )
        logging.getLogger("uvicorn.error").addFilter(_tells)
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


class _PlainClient:
    """Has clients of IPv4 known by their IPv4 address, also where one socket serves both families: limits, logs and
    admin calls tell callers apart by it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or lead one session."""
        if scope.get("client"):
            address, port = scope["client"]
            scope["client"] = (str(plain(ipaddress.ip_address(address))), port)
        await self._app(scope, receive, send)


class _Shortage:
    """Where no descriptor is left, asyncio tries every second to accept the connections that wait, and tells each time
    that it could not. This tells it once, and once that it is over."""

    def __init__(self) -> None:
        self._over: asyncio.TimerHandle | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error that nobody else handles."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in NO_RESOURCE and "socket" in context):
            loop.default_exception_handler(context)
            return
        if self._over:
            self._over.cancel()
        else:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            log.error("connections wait to be accepted: %s; this process may open %d", error.strerror, limit)
        self._over = loop.call_later(QUIET, self._end)

    def _end(self) -> None:
        self._over = None
        log.info("connections are accepted again")


class _Server(uvicorn.Server):
    """Waits at its end for what is being sent, but not for clients to say goodbye: TLS wants them to, and a client that
    keeps a connection for later does not read."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has just made it config.backlog

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections."""
        asyncio.get_running_loop().call_later(FAREWELL, self._part)
        await super().shutdown(sockets)

    def _part(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport.is_closing() and not _unread(connection.transport):
                connection.transport.abort()


def _unread(transport: asyncio.Transport) -> int:
    """Bytes that the client's system has not taken yet; with 0, none wait in this process either."""
    count = array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, count)
    return count[0]


def _run(loop: asyncio.AbstractEventLoop, server: uvicorn.Server, sockets: list[socket.socket]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(server.serve(sockets=sockets))
        loop.run_until_complete(_end_the_rest())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _end_the_rest() -> None:
    """Give up on connections whose TLS handshake never came, of which uvicorn knows nothing."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def _bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address, but for those that this machine does not have, if it has another."""
    found: list[socket.socket] = []
    missing: list[OSError] = []
    for address in addresses(host):
        try:
            found.append(_listener(address, found[0].getsockname()[1] if found else port))
        except OSError as error:
            if error.errno not in NO_SUCH_ADDRESS:
                for listener in found:
                    listener.close()
                advice = "set ASR_PORT to a free port, or end what holds it"
                raise _unusable(host, port, error, advice) from None
            missing.append(error)
        if found and host == ANY_IPV6:  # which serves IPv4 too
            break
    if not found:
        raise _unusable(host, port, missing[0], "set ASR_HOST to an address of this machine, see: ip address")
    return found


def _unusable(host: str, port: int, error: OSError, advice: str) -> KitError:
    return KitError(in_url(host, port), f"cannot be listened on: {error.strerror}", advice)


def _listener(address: str, port: int) -> socket.socket:
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
