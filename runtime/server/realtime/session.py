"""A realtime session: one task handles the client's events in order, and sends each answer before it goes on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi import WebSocket, WebSocketDisconnect

from runtime.audio import SAMPLE_RATE
from runtime.server.errors import ApiError, RevokedError, StoppingError, invalid
from runtime.server.realtime import events
from runtime.server.realtime.events import EventSender, new_id
from runtime.server.realtime.local_agreement import PartialTranscript
from runtime.server.realtime.pacing import Pace
from runtime.server.realtime.session_config import VLLM_CONFIG, ResolvedConfig, SessionConfig, resolve
from runtime.server.realtime.transcription import TurnTranscriber
from runtime.server.realtime.turn import MAX_SEGMENT_SECONDS, Turn
from runtime.server.realtime.turn_detection import TurnDetector
from runtime.server.routes.info import check_model
from runtime.server.service import Service, trim_heap_sometimes
from runtime.server.state import ServerState

SLICE_SECONDS = 0.128  # of audio processed at once; voice activity detection takes some 4 ms for it
MIN_COMMIT_SECONDS = 0.1  # of audio, as at OpenAI
MAX_BACKLOG_SECONDS = 60.0  # of audio waiting to be decoded; beyond it, nothing is read from the client
SESSION_POLL_INTERVAL = 0.5  # seconds between looks at whether the server drains, or the key was revoked
# The warning to vLLM's clients, which send no session.
VLLM_WARNING = (
    "session: is missing; as at vLLM, audio is 16-bit PCM at 16 kHz, and input_audio_buffer.commit ends a turn"
)

T = TypeVar("T")


class Session:
    """A session with one client, whose WebSocket is accepted."""

    def __init__(
        self,
        socket: WebSocket,
        sender: EventSender,
        *,
        service: Service,
        server_state: ServerState,
        warnings: Sequence[str] = (),
    ) -> None:
        """`warnings` are those about the address."""
        self._socket, self._sender, self._service, self._server_state = socket, sender, service, server_state
        self._warnings = warnings
        self._id = new_id("sess")
        self._resolved: ResolvedConfig = resolve(SessionConfig(), service.transcriber)
        self._detector = TurnDetector(
            rate=self._resolved.format.rate,
            detection=self._resolved.detection,
            longest=min(MAX_SEGMENT_SECONDS, service.settings.segment_seconds),
        )
        self._transcriber = TurnTranscriber(sender, service, self._detector.buffer)
        self._pace = Pace()
        self._last_item: str | None = None  # the last one that was committed
        self._finished = False  # the client has asked for the end
        # The next message, awaited while the last event is still being handled: a connection that is not read from
        # answers no ping of the client either.
        self._receiving: asyncio.Future[Any]

    async def run(self) -> None:
        """Run until the client or the server ends the session; when the server drains, all audio so far is transcribed
        first.

        Returns if the client ends it. Raises the KitError for which the server ends it, and WebSocketDisconnect, or
        what EventSender raises, if the client is gone.
        """
        await self._sender.send("session.created", session=self._session_object(), **_warnings_field(self._warnings))
        self._receiving = asyncio.ensure_future(self._socket.receive())
        last_active = time.monotonic()
        try:
            while not self._finished and self._server_state.status != "draining":
                await self._transcriber.advance()
                ready = {self._receiving} if self._transcriber.backlog_seconds < MAX_BACKLOG_SECONDS else set()
                awaited = {*ready, *self._transcriber.decoding}
                await asyncio.wait(awaited, timeout=SESSION_POLL_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
                await self._check_open()
                if ready and self._receiving.done():
                    message = self._receiving.result()
                    self._receiving = asyncio.ensure_future(self._socket.receive())
                    await self._handle(message)
                    last_active = time.monotonic()
                self._check_idle(last_active)
            await self._finish()
        finally:
            self._receiving.cancel()
            await self._transcriber.cancel()
            if self._detector.buffer.end:
                await trim_heap_sometimes(last=self._service.sessions == 1)
        if self._finished:
            await self._sender.send("session.finished")
            return
        raise StoppingError("the server", f"is {self._server_state.status_text}", "connect again later")

    async def _handle(self, message: Mapping[str, Any]) -> None:
        """Handle an event; an error is sent to the client, and the session goes on."""
        event: dict[str, Any] = {}
        try:
            large = len(message.get("text") or "") > events.MAX_TEXT_CHARS
            event = await self._in_thread_if(partial(events.parse_event, message), large=large)
            del message  # which may be large
            events.check_event(event)
            await HANDLERS[event["type"]](self, event)
        except ApiError as error:
            await self._sender.error(error, event.get("event_id"))

    async def _in_thread_if(self, function: Callable[[], T], *, large: bool) -> T:
        """Call `function`, in another thread if it is `large` work that would hold up others."""
        return await self._service.in_parser_thread(function) if large else function()

    async def _update(self, event: dict[str, Any]) -> None:
        warnings = [*check_model(event.get("model"), self._service.settings)]
        if "session" not in event:
            warnings.append(VLLM_WARNING)
        # In a thread: thousands of fields take long to look through, and a long context takes long to count in tokens.
        config, changes = self._resolved.config, event.get("session", VLLM_CONFIG)
        update = await self._service.in_parser_thread(partial(config.updated, changes))
        resolved = await self._service.in_parser_thread(partial(resolve, update.config, self._service.transcriber))
        if not resolved.has_same_audio(self._resolved):
            if self._detector.turn:
                message = "format and turn_detection cannot change within a turn; commit or clear it first"
                raise invalid("session.audio.input", message, code="turn_open")
            self._detector.reconfigure(rate=resolved.format.rate, detection=resolved.detection)
        self._resolved = resolved
        beta = event["type"] == "transcription_session.update"
        session = self._session_object(beta=beta)
        kind = "transcription_session.updated" if beta else "session.updated"
        warnings += [*update.warnings, *resolved.warnings]
        await self._sender.send(kind, session=session, **_warnings_field(warnings))

    async def _append(self, event: dict[str, Any]) -> None:
        audio_format, text = self._resolved.format, event.pop("audio")
        decode = partial(events.decode_audio, text, sample_bytes=audio_format.sample_bytes)
        data = await self._in_thread_if(decode, large=isinstance(text, str) and len(text) > events.AUDIO_CHUNK)
        del text, decode
        size = audio_format.sample_bytes * int(SLICE_SECONDS * audio_format.rate)
        for start in range(0, len(data), size):
            pcm = audio_format.pcm(data[start : start + size])
            async with self._service.catch_up.slot(is_ahead=self._pace.is_ahead(len(pcm) / 2 / audio_format.rate)):
                turns = [(turn, turn.end is None) for turn in self._detector.feed(pcm, new_turn=self._new_turn)]
            for turn, begins in turns:
                await (self._turn_started(turn) if begins else self._turn_stopped(turn))
            await self._transcriber.advance()
            await self._check_open()
            while self._transcriber.backlog_seconds >= MAX_BACKLOG_SECONDS and self._transcriber.decoding:
                await asyncio.wait(self._transcriber.decoding, timeout=SESSION_POLL_INTERVAL)
                await self._check_open()
                await self._transcriber.advance()

    async def _commit(self, _: dict[str, Any]) -> None:
        turn = self._detector.commit(shortest=MIN_COMMIT_SECONDS)
        if turn is None:
            message = f"expected {MIN_COMMIT_SECONDS * 1000:g} ms of audio or more"
            if self._resolved.detection:
                message = "nobody speaks, and what was said before was committed by turn_detection"
            raise ApiError(400, f"there is nothing to commit: {message}", code="input_audio_buffer_commit_empty")
        await self._turn_committed(turn)

    async def _finish_session(self, _: dict[str, Any]) -> None:
        self._finished = True

    async def _do_nothing(self, _: dict[str, Any]) -> None:
        """There is no response that could be stopped."""

    async def _clear(self, _: dict[str, Any]) -> None:
        turn = self._detector.clear()
        if turn:
            self._transcriber.turns.remove(turn)
        await self._sender.send("input_audio_buffer.cleared")

    def _new_turn(self, start: int) -> Turn:
        partial_transcript = PartialTranscript(self._resolved.language)
        turn = Turn(new_id("item"), self._resolved.prompt, start, partial_transcript, open=start)
        self._transcriber.turns.append(turn)
        return turn

    async def _turn_started(self, turn: Turn) -> None:
        if self._resolved.detection:
            start = _milliseconds(turn.start)
            await self._sender.send("input_audio_buffer.speech_started", item_id=turn.id, audio_start_ms=start)

    async def _turn_stopped(self, turn: Turn) -> None:
        end = _milliseconds(turn.end or 0)
        await self._sender.send("input_audio_buffer.speech_stopped", item_id=turn.id, audio_end_ms=end)
        await self._turn_committed(turn)

    async def _turn_committed(self, turn: Turn) -> None:
        before, self._last_item = self._last_item, turn.id
        await self._sender.send("input_audio_buffer.committed", item_id=turn.id, previous_item_id=before)
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": turn.id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user"}
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._sender.send(kind, previous_item_id=before, item={**item, "content": content})

    async def _finish(self) -> None:
        """Transcribe what was received, and send all of it, before the session ends."""
        turn = self._detector.commit(shortest=MIN_COMMIT_SECONDS)
        if turn:
            await self._turn_committed(turn)
        elif self._detector.turn:  # too short to hold a word
            self._transcriber.turns.remove(self._detector.turn)
        await self._transcriber.finish()

    async def _check_open(self) -> None:
        """Raise RevokedError if the client's key is no longer valid, and WebSocketDisconnect if the client has hung up,
        even if messages from before wait to be handled."""
        if self._socket.state.is_revoked():
            raise RevokedError("the key", "is none of this server's any more")
        if self._socket.state.hung_up.is_set():
            while (message := await self._receiving)["type"] != "websocket.disconnect":
                self._receiving = asyncio.ensure_future(self._socket.receive())
            raise WebSocketDisconnect(message.get("code", 1005), message.get("reason"))

    def _check_idle(self, last_active: float) -> None:
        """Raise StoppingError if nothing came for ASR_REQUEST_TIMEOUT_SECONDS, or before the first audio, for
        ASR_SESSION_IDLE_SECONDS."""
        settings = self._service.settings
        limit = settings.request_timeout_seconds
        if not self._detector.buffer.end:
            limit = min(limit, settings.session_idle_seconds)
        if not self._transcriber.decoding and time.monotonic() - last_active > limit:
            raise StoppingError("the session", f"was idle for longer than the limit of {limit:g} s", "connect again")

    def _session_object(self, *, beta: bool = False) -> dict[str, Any]:
        config = self._resolved.config
        fields = config.in_beta_names() if beta else config.model_dump()
        return {"id": self._id, "object": "realtime.transcription_session", **fields}


HANDLERS: Mapping[str, Callable[[Session, dict[str, Any]], Awaitable[None]]] = {
    "session.update": Session._update,
    "transcription_session.update": Session._update,
    "input_audio_buffer.append": Session._append,
    "input_audio_buffer.commit": Session._commit,
    "input_audio_buffer.clear": Session._clear,
    "session.finish": Session._finish_session,
    "response.cancel": Session._do_nothing,
    "output_audio_buffer.clear": Session._do_nothing,
}


def _warnings_field(warnings: Sequence[str]) -> dict[str, Any]:
    """The `warnings` field of an event, if there are any."""
    return {"warnings": list(warnings)} if warnings else {}


def _milliseconds(sample: int) -> int:
    return sample * 1000 // SAMPLE_RATE
