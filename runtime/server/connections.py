"""A connection of HTTP whose client must ask and read in time; uvicorn itself waits for ever."""

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0  # from the connection, or from the last answer, to the end of a request's head; nginx takes 60
LENGTHS = {b"content-length", b"transfer-encoding"}
UNREAD_SECONDS = 120.0  # for what is sent to be taken by the other side; then the system gives the connection up


class StrictConnection(h11.Connection):
    """Refuses a request that says its length in two ways, by which a proxy in front may have seen another request
    (RFC 9112, 6.1): it is answered with 400, and the connection closed. h11 itself refuses two lengths that differ."""

    def next_event(self) -> Any:
        """What came."""
        event = super().next_event()
        if isinstance(event, h11.Request) and {name for name, _ in event.headers} >= LENGTHS:
            raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
        return event


class PatientProtocol(H11Protocol):
    """Closes a connection on which no request is complete up to its body within HEAD_SECONDS, however much of it, or of
    the body of the last one, drips in. Where nothing comes after an answer, uvicorn closes sooner."""

    _due: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = StrictConnection(h11.SERVER)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNREAD_SECONDS))
        self._due = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._come()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Something came."""
        super().handle_events()
        if self.cycle and not self.cycle.response_complete:
            self._come()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From here on another protocol has the connection."""
        self._come()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """A request is answered; the next one may be here already."""
        self._come()
        self._due = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        super().on_response_complete()

    def _come(self) -> None:
        if self._due:
            self._due.cancel()
            self._due = None
