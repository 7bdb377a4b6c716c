"""Connections whose clients must ask and read in time, and may not flood; uvicorn itself waits for ever, and parses
all that comes."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

HEAD_SECONDS = 20.0  # from the connection, or from the last answer, to the end of a request's head; nginx takes 60
LENGTHS = {b"content-length", b"transfer-encoding"}
UNREAD_SECONDS = 120.0  # for what is sent to be taken by the other side; then the system gives the connection up
# Bytes of a WebSocket that are parsed before others have their turn, and seconds for all WebSockets each time that the
# event loop goes round. Of the smallest frames, 6 bytes each, a piece takes some 2 ms; all that asyncio reads at once,
# 256 KiB, would take 0.2 s.
PIECE, TURN_SECONDS = 2 << 10, 0.002
# Frames of one message: those of the largest one, 32 MiB, in pieces of 4 KiB, the smallest that common clients send. A
# frame that holds a byte takes 70 of memory.
MOST_FRAGMENTS = 8192
# Messages, and bytes of them, that are read while the application is busy, so that a hang-up behind them is noticed.
MOST_AHEAD, MOST_AHEAD_BYTES = 256, 1 << 20
GONE_INTERVAL = 0.5  # seconds between looks at whether a client that is not read from is still connected
ESTABLISHED = 1  # Linux's TCP_ESTABLISHED; in any other state the client, or the system, has ended the connection
# Pings and pongs within so many seconds. Clients send one every few seconds; those of minutes may come together.
MOST_CONTROL, CONTROL_SECONDS = 200, 10.0


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


class FairReading:
    """Work for the event loop, some of it each time that it goes round, so that others need not wait for all of it."""

    def __init__(self) -> None:
        self._due: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def add(self, work: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Have it done when it is its turn."""
        self._due.append(work)
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._due and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._take, loop)

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        until = loop.time() + TURN_SECONDS
        try:
            while self._due and loop.time() < until:
                self._due.popleft()()
        finally:
            self._scheduled = False
            self._schedule(loop)


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Parses what comes piece by piece, in turn with other connections, and no further ahead of the application than
    MOST_AHEAD. Closes a connection that floods with pings or with fragments. `hung_up`, in the scope's state, is set as
    soon as the client is known to have left, whatever the application has still to receive before."""

    def __init__(self, turns: FairReading, **options: Any) -> None:
        super().__init__(**options)
        self._turns = turns
        self._pieces: deque[bytes] = deque()
        self._waiting = False  # for its turn
        self._control, self._since = 0, 0.0  # frames of control since then
        self._ahead = 0  # bytes of messages since the application last had them all
        self._look: asyncio.TimerHandle | None = None
        self._hung_up = asyncio.Event()
        self.app_state = {**self.app_state, "hung_up": self._hung_up}

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._pieces.clear()
        if self._look:
            self._look.cancel()
        super().connection_lost(exc)
        self._hung_up.set()

    def data_received(self, data: bytes) -> None:
        """Something came."""
        self._pieces.extend(data[start : start + PIECE] for start in range(0, len(data), PIECE))
        self._go_on()

    async def receive(self) -> Any:
        """What the client says next, for the application."""
        message = await super().receive()
        if self.queue.empty():
            self._ahead = 0
        self._go_on()
        return message

    async def send(self, message: Any) -> None:
        """What the application says. After its goodbye, all that comes is read up to the client's."""
        await super().send(message)
        self._go_on()

    def handle_ping(self) -> None:
        """It is answered, with all others of a piece, unless there are too many."""
        self._count_control()

    def handle_pong(self, event: Frame) -> None:
        """An answer, or one that nobody asked for."""
        self._count_control()
        super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        """One more frame of a message."""
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._refuse(CloseCode.MESSAGE_TOO_BIG, f"a message of more than {MOST_FRAGMENTS} frames")

    def handle_close(self, event: Frame) -> None:
        """The client says goodbye."""
        super().handle_close(event)
        self._hung_up.set()

    def handle_parser_exception(self) -> None:
        """What came is no WebSocket's; the connection is closed."""
        super().handle_parser_exception()
        self._hung_up.set()

    def shutdown(self) -> None:
        """The server stops answering."""
        super().shutdown()
        self._hung_up.set()

    def send_receive_event_to_app(self) -> None:
        """A message is complete; reading pauses only with many of them."""
        self._ahead += sum(map(len, self.frames))
        super().send_receive_event_to_app()
        self.read_paused = self.queue.qsize() >= MOST_AHEAD or self._ahead >= MOST_AHEAD_BYTES

    def _go_on(self) -> None:
        """With the next piece, unless the application has much to take; until it has, nothing is read."""
        if self.read_paused and not self._look:
            self._look = self.loop.call_later(GONE_INTERVAL, self._notice_hang_up)
        if self._pieces:
            self.transport.pause_reading()
            if not self.read_paused and not self._waiting:
                self._waiting = True
                self._turns.add(self._parse, self.loop)
        elif not self.read_paused:
            self.transport.resume_reading()

    def _parse(self) -> None:
        self._waiting = False
        if self.transport.is_closing():
            self._pieces.clear()
        elif self._pieces and not self.read_paused:
            super().data_received(self._pieces.popleft())
            if answers := self.conn.data_to_send():
                self.transport.write(b"".join(answers))
        self._go_on()

    def _notice_hang_up(self) -> None:
        """While nothing is read, asyncio does not see the end of a connection; the system does."""
        self._look = None
        connection = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED:
            self.transport.abort()
        elif self.read_paused:
            self._look = self.loop.call_later(GONE_INTERVAL, self._notice_hang_up)

    def _count_control(self) -> None:
        now = self.loop.time()
        if now - self._since > CONTROL_SECONDS:
            self._control, self._since = 0, now
        self._control += 1
        if self._control > MOST_CONTROL:
            words = f"more than {MOST_CONTROL} pings and pongs within {CONTROL_SECONDS:g} s"
            self._refuse(CloseCode.POLICY_VIOLATION, words)

    def _refuse(self, code: CloseCode, reason: str) -> None:
        """Close at once, unless that is done."""
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()
