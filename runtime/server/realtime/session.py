"""A session: what a client asks for is done, event by event, and answered.

One task leads it and sends each event before it goes on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi import WebSocket, WebSocketDisconnect

from runtime.audio import SAMPLE_RATE
from runtime.server.errors import ApiError, RevokedError, StoppingError, invalid
from runtime.server.realtime import events
from runtime.server.realtime.events import Outgoing, new_id
from runtime.server.realtime.local_agreement import PartialTranscript
from runtime.server.realtime.pacing import Pace
from runtime.server.realtime.session_config import VLLM, Config, Terms, agree
from runtime.server.realtime.transcription import TurnTranscriber
from runtime.server.realtime.turn import LONGEST, Turn
from runtime.server.realtime.turn_detection import TurnDetector
from runtime.server.routes.info import check_model
from runtime.server.service import Service, tidy
from runtime.server.state import ServerState

SLICE = 0.128  # seconds of sound that are heard at once; following the voice in it takes some 4 ms
SHORTEST = 0.1  # seconds that a client may commit, as at OpenAI
AHEAD = 60.0  # seconds of sound that wait to be decoded; with more of it, nothing is read from the client
TICK = 0.5  # seconds between looks at whether the server drains, or the key was revoked
# The warning to vLLM's clients, which send no session.
AS_AT_VLLM = "session: is missing; as at vLLM, audio is 16-bit PCM at 16 kHz, and input_audio_buffer.commit ends a turn"

T = TypeVar("T")


class Session:
    """With one client, whose WebSocket is accepted."""

    def __init__(
        self,
        socket: WebSocket,
        outgoing: Outgoing,
        *,
        service: Service,
        life: ServerState,
        warnings: Sequence[str] = (),
    ) -> None:
        """`warnings` are of what the address asked for."""
        self._socket, self._out, self._service, self._life = socket, outgoing, service, life
        self._warnings = warnings
        self._id = new_id("sess")
        self._terms: Terms = agree(Config(), service.transcriber)
        self._listener = TurnDetector(
            rate=self._terms.format.rate,
            detection=self._terms.detection,
            longest=min(LONGEST, service.settings.segment_seconds),
        )
        self._narrator = TurnTranscriber(outgoing, service, self._listener.tape)
        self._pace = Pace()
        self._item: str | None = None  # the last one that was committed
        self._finished = False  # the client has asked for the end
        # What the client says next. It is awaited while the last event is still being done: a connection from which
        # nothing is read answers no ping of the client either, and does not tell that the client is gone.
        self._receiving: asyncio.Future[Any]

    async def lead(self) -> None:
        """Until the client or the server ends it; where the server drains, once all that was said is told.

        Returns where the client ends it. Raises the KitError for which the server does, and WebSocketDisconnect or what
        `Outgoing` raises where the client is gone.
        """
        await self._out.send("session.created", session=self._described(), **_warned(self._warnings))
        self._receiving = asyncio.ensure_future(self._socket.receive())
        active = time.monotonic()
        try:
            while not self._finished and self._life.status != "draining":
                await self._narrator.advance()
                ready = {self._receiving} if self._narrator.waiting < AHEAD else set()
                awaited = {*ready, *self._narrator.decoding}
                await asyncio.wait(awaited, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                await self._check_open()
                if ready and self._receiving.done():
                    message = self._receiving.result()
                    self._receiving = asyncio.ensure_future(self._socket.receive())
                    await self._take(message)
                    active = time.monotonic()
                self._refuse_if_idle(active)
            await self._finish()
        finally:
            self._receiving.cancel()
            await self._narrator.give_up()
            if self._listener.tape.end:
                await tidy(last=self._service.sessions == 1)
        if self._finished:
            await self._out.send("session.finished")
            return
        raise StoppingError("the server", f"is {self._life.stage}", "connect again later")

    async def _take(self, message: Mapping[str, Any]) -> None:
        """Do what an event says, or tell what is wrong with it; the session goes on."""
        event: dict[str, Any] = {}
        try:
            large = len(message.get("text") or "") > events.MOST_TEXT
            event = await self._apart(partial(events.read, message), large=large)
            del message  # which may be large
            events.check(event)
            await HANDLERS[event["type"]](self, event)
        except ApiError as error:
            await self._out.error(error, event.get("event_id"))

    async def _apart(self, function: Callable[[], T], *, large: bool) -> T:
        """What `function` gives, in another thread if it works on so much that others would wait."""
        return await self._service.parse(function) if large else function()

    async def _update(self, event: dict[str, Any]) -> None:
        warnings = [*check_model(event.get("model"), self._service.settings)]
        if "session" not in event:
            warnings.append(AS_AT_VLLM)
        # In a thread: thousands of fields take long to look through, and a long context takes long to count in tokens.
        update = await self._service.parse(partial(self._terms.config.updated, event.get("session", VLLM)))
        terms = await self._service.parse(partial(agree, update.config, self._service.transcriber))
        if not terms.hears_like(self._terms):
            if self._listener.turn:
                words = "format and turn_detection cannot change within a turn; commit or clear it first"
                raise invalid("session.audio.input", words, code="turn_open")
            self._listener.tune(rate=terms.format.rate, detection=terms.detection)
        self._terms = terms
        beta = event["type"] == "transcription_session.update"
        session = self._described(beta=beta)
        kind = "transcription_session.updated" if beta else "session.updated"
        await self._out.send(kind, session=session, **_warned((*warnings, *update.warnings, *terms.warnings)))

    async def _append(self, event: dict[str, Any]) -> None:
        form, text = self._terms.format, event.pop("audio")
        decode = partial(events.audio, text, sample_bytes=form.sample_bytes)
        sound = await self._apart(decode, large=isinstance(text, str) and len(text) > events.PIECE)
        del text, decode
        size = form.sample_bytes * int(SLICE * form.rate)
        for start in range(0, len(sound), size):
            pcm = form.pcm(sound[start : start + size])
            async with self._service.hearing.turn(hurried=self._pace.hurries(len(pcm) / 2 / form.rate)):
                turns = [(turn, turn.end is None) for turn in self._listener.hear(pcm, new_turn=self._new_turn)]
            for turn, begins in turns:
                await (self._begun(turn) if begins else self._stopped(turn))
            await self._narrator.advance()
            await self._check_open()
            while self._narrator.waiting >= AHEAD and self._narrator.decoding:
                await asyncio.wait(self._narrator.decoding, timeout=TICK)
                await self._check_open()
                await self._narrator.advance()

    async def _commit(self, _: dict[str, Any]) -> None:
        turn = self._listener.commit(shortest=SHORTEST)
        if turn is None:
            words = f"expected {SHORTEST * 1000:g} ms of audio or more"
            if self._terms.detection:
                words = "nobody speaks, and what was said before was committed by turn_detection"
            raise ApiError(400, f"there is nothing to commit: {words}", code="input_audio_buffer_commit_empty")
        await self._committed(turn)

    async def _end(self, _: dict[str, Any]) -> None:
        self._finished = True

    async def _do_nothing(self, _: dict[str, Any]) -> None:
        """There is no answer that could be stopped."""

    async def _clear(self, _: dict[str, Any]) -> None:
        turn = self._listener.clear()
        if turn:
            self._narrator.turns.remove(turn)
        await self._out.send("input_audio_buffer.cleared")

    def _new_turn(self, start: int) -> Turn:
        turn = Turn(new_id("item"), self._terms.prompt, start, PartialTranscript(self._terms.language), open=start)
        self._narrator.turns.append(turn)
        return turn

    async def _begun(self, turn: Turn) -> None:
        if self._terms.detection:
            start = _milliseconds(turn.start)
            await self._out.send("input_audio_buffer.speech_started", item_id=turn.id, audio_start_ms=start)

    async def _stopped(self, turn: Turn) -> None:
        end = _milliseconds(turn.end or 0)
        await self._out.send("input_audio_buffer.speech_stopped", item_id=turn.id, audio_end_ms=end)
        await self._committed(turn)

    async def _committed(self, turn: Turn) -> None:
        before, self._item = self._item, turn.id
        await self._out.send("input_audio_buffer.committed", item_id=turn.id, previous_item_id=before)
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": turn.id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user"}
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._out.send(kind, previous_item_id=before, item={**item, "content": content})

    async def _finish(self) -> None:
        """Tell all that was said."""
        turn = self._listener.commit(shortest=SHORTEST)
        if turn:
            await self._committed(turn)
        elif self._listener.turn:  # too short to hold a word
            self._narrator.turns.remove(self._listener.turn)
        await self._narrator.finish()

    async def _check_open(self) -> None:
        """Raises RevokedError where the key is the client's no more, and WebSocketDisconnect where the client has left,
        whatever it said before."""
        if self._socket.state.is_revoked():
            raise RevokedError("the key", "is none of this server's any more")
        if self._socket.state.hung_up.is_set():
            while (message := await self._receiving)["type"] != "websocket.disconnect":
                self._receiving = asyncio.ensure_future(self._socket.receive())
            raise WebSocketDisconnect(message.get("code", 1005), message.get("reason"))

    def _refuse_if_idle(self, active: float) -> None:
        """Raises StoppingError where the client has said nothing for as long as a request may take, or a session before
        its first audio."""
        settings = self._service.settings
        most = settings.request_timeout_seconds
        if not self._listener.tape.end:
            most = min(most, settings.session_idle_seconds)
        if not self._narrator.decoding and time.monotonic() - active > most:
            raise StoppingError("the session", f"was idle for longer than the limit of {most:g} s", "connect again")

    def _described(self, *, beta: bool = False) -> dict[str, Any]:
        config = self._terms.config
        told = config.in_beta_names() if beta else config.model_dump()
        return {"id": self._id, "object": "realtime.transcription_session", **told}


HANDLERS: Mapping[str, Callable[[Session, dict[str, Any]], Awaitable[None]]] = {
    "session.update": Session._update,
    "transcription_session.update": Session._update,
    "input_audio_buffer.append": Session._append,
    "input_audio_buffer.commit": Session._commit,
    "input_audio_buffer.clear": Session._clear,
    "session.finish": Session._end,
    "response.cancel": Session._do_nothing,
    "output_audio_buffer.clear": Session._do_nothing,
}


def _warned(warnings: Sequence[str]) -> dict[str, Any]:
    """The field of an event that tells what had no effect, if anything had none."""
    return {"warnings": list(warnings)} if warnings else {}


def _milliseconds(sample: int) -> int:
    return sample * 1000 // SAMPLE_RATE
