"""HTTP and WebSocket protocols for uvicorn with timeouts and bounds, so that slow or flooding clients cost others
little."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

# Seconds from the connection, or from the last answer, to the end of a request's head; nginx takes 60.
REQUEST_HEAD_TIMEOUT = 20.0
LENGTH_HEADERS = {b"content-length", b"transfer-encoding"}
UNACKNOWLEDGED_TIMEOUT = 120.0  # seconds for the other side to take what is sent; then the system ends the connection
# Bytes of a WebSocket parsed before others have their turn, and seconds for all WebSockets per iteration of the event
# loop. A piece of the smallest frames, 6 bytes each, takes some 2 ms; all that asyncio reads at once, 256 KiB, 0.2 s.
PARSE_BYTES, TIME_SLICE = 2 << 10, 0.002
# Frames of one message: those of the largest one, 32 MiB, in pieces of 4 KiB, the smallest that common clients send. A
# frame that holds a byte takes 70 of memory.
MAX_FRAGMENTS = 8192
# Messages, and bytes of them, that are read while the application is busy, so that a hang-up behind them is noticed.
MAX_QUEUED_MESSAGES, MAX_QUEUED_BYTES = 256, 1 << 20
HANG_UP_CHECK_INTERVAL = 0.5  # seconds, while the connection is not read from
TCP_ESTABLISHED = 1  # Linux's; in any other state the client, or the system, has ended the connection
# Pings and pongs within so many seconds. Clients send one every few seconds; after a stall, those of minutes may arrive
# together.
MAX_CONTROL_FRAMES, CONTROL_FRAME_WINDOW = 200, 10.0


class StrictConnection(h11.Connection):
    """Refuses a request with both Content-Length and Transfer-Encoding, of which a proxy in front may have seen another
    request (RFC 9112, 6.1): 400, and the connection is closed. h11 itself refuses two lengths that differ."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request) and {name for name, _ in event.headers} >= LENGTH_HEADERS:
            raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
        return event


class PatientProtocol(H11Protocol):
    """Closes a connection that completes no request's head within REQUEST_HEAD_TIMEOUT, however much of it, or of the
    body before, drips in. An idle connection after an answer is closed sooner by uvicorn."""

    _due: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = StrictConnection(h11.SERVER)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNACKNOWLEDGED_TIMEOUT))
        self._due = self.loop.call_later(REQUEST_HEAD_TIMEOUT, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle and not self.cycle.response_complete:
            self._stop_head_timer()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over; the timeout for a request's head ends."""
        self._stop_head_timer()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Start the timeout for the next request's head, which may have arrived already."""
        self._stop_head_timer()
        self._due = self.loop.call_later(REQUEST_HEAD_TIMEOUT, self.transport.close)
        super().on_response_complete()

    def _stop_head_timer(self) -> None:
        if self._due:
            self._due.cancel()
            self._due = None


class FairReading:
    """A queue of parsing work of all WebSockets. Each iteration of the event loop does some of it, so that nobody waits
    for all of it."""

    def __init__(self) -> None:
        self._due: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def add(self, work: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._due.append(work)
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._due and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._run_slice, loop)

    def _run_slice(self, loop: asyncio.AbstractEventLoop) -> None:
        until = loop.time() + TIME_SLICE
        try:
            while self._due and loop.time() < until:
                self._due.popleft()()
        finally:
            self._scheduled = False
            self._schedule(loop)


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Parses input in pieces, in turn with other connections, at most MAX_QUEUED_MESSAGES ahead of the application.
    Closes a connection that floods with pings or fragments. Sets `hung_up`, in the scope's state, as soon as the client
    has left, even if messages from before wait to be received."""

    def __init__(self, fair_reading: FairReading, **options: Any) -> None:
        super().__init__(**options)
        self._fair_reading = fair_reading
        self._chunks: deque[bytes] = deque()
        self._is_scheduled = False  # for its turn
        self._control, self._since = 0, 0.0  # control frames since that time
        self._queued_bytes = 0  # since the queue was last empty
        self._hang_up_timer: asyncio.TimerHandle | None = None
        self._hung_up = asyncio.Event()
        self.app_state = {**self.app_state, "hung_up": self._hung_up}

    def connection_lost(self, exc: Exception | None) -> None:
        self._chunks.clear()
        if self._hang_up_timer:
            self._hang_up_timer.cancel()
        super().connection_lost(exc)
        self._hung_up.set()

    def data_received(self, data: bytes) -> None:
        self._chunks.extend(data[start : start + PARSE_BYTES] for start in range(0, len(data), PARSE_BYTES))
        self._continue()

    async def receive(self) -> Any:
        """Give the application the next message, and go on parsing."""
        message = await super().receive()
        if self.queue.empty():
            self._queued_bytes = 0
        self._continue()
        return message

    async def send(self, message: Any) -> None:
        """Send the application's message. After its close, all input up to the client's close is read."""
        await super().send(message)
        self._continue()

    def handle_ping(self) -> None:
        """Count it. The reply is sent with those to the other pings of the piece."""
        self._count_control()

    def handle_pong(self, event: Frame) -> None:
        """Count it, whether or not it was asked for."""
        self._count_control()
        super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._refuse(CloseCode.MESSAGE_TOO_BIG, f"a message of more than {MAX_FRAGMENTS} frames")

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._hung_up.set()

    def handle_parser_exception(self) -> None:
        """Close the connection, whose input is no WebSocket's."""
        super().handle_parser_exception()
        self._hung_up.set()

    def shutdown(self) -> None:
        super().shutdown()
        self._hung_up.set()

    def send_receive_event_to_app(self) -> None:
        """Queue a complete message. Unlike in uvicorn, reading pauses only when many are queued."""
        self._queued_bytes += sum(map(len, self.frames))
        super().send_receive_event_to_app()
        is_full = self.queue.qsize() >= MAX_QUEUED_MESSAGES or self._queued_bytes >= MAX_QUEUED_BYTES
        self.read_paused = is_full and not self.close_sent  # after which messages are dropped

    def _continue(self) -> None:
        """Parse the next piece; with a full queue, read nothing until the application has emptied it."""
        if self.read_paused and not self._hang_up_timer:
            self._hang_up_timer = self.loop.call_later(HANG_UP_CHECK_INTERVAL, self._check_hang_up)
        if self._chunks:
            self.transport.pause_reading()
            if not self.read_paused and not self._is_scheduled:
                self._is_scheduled = True
                self._fair_reading.add(self._parse, self.loop)
        elif not self.read_paused:
            self.transport.resume_reading()

    def _parse(self) -> None:
        self._is_scheduled = False
        if self.transport.is_closing():
            self._chunks.clear()
        elif self._chunks and not self.read_paused:
            super().data_received(self._chunks.popleft())
            if replies := self.conn.data_to_send():
                self.transport.write(b"".join(replies))
        self._continue()

    def _check_hang_up(self) -> None:
        """Ask the system about the connection: while it is not read from, asyncio does not see its end."""
        self._hang_up_timer = None
        connection = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED:
            self.transport.abort()
        elif self.read_paused:
            self._hang_up_timer = self.loop.call_later(HANG_UP_CHECK_INTERVAL, self._check_hang_up)

    def _count_control(self) -> None:
        now = self.loop.time()
        if now - self._since > CONTROL_FRAME_WINDOW:
            self._control, self._since = 0, now
        self._control += 1
        if self._control > MAX_CONTROL_FRAMES:
            reason = f"more than {MAX_CONTROL_FRAMES} pings and pongs within {CONTROL_FRAME_WINDOW:g} s"
            self._refuse(CloseCode.POLICY_VIOLATION, reason)

    def _refuse(self, code: CloseCode, reason: str) -> None:
        """Close at once, unless that is done."""
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()
