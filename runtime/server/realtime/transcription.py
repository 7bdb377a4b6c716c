"""What is told of turns: their words, oldest turn first, as soon as the engine makes them certain."""

import asyncio
import copy
from collections import deque
from dataclasses import dataclass

from env.errors import KitError
from runtime import languages
from runtime.audio import SAMPLE_RATE, Samples, segment
from runtime.engines import Decoded, EngineError, Utterance
from runtime.server.errors import StoppingError, from_kit
from runtime.server.realtime.events import Outgoing
from runtime.server.realtime.session_config import NAMES
from runtime.server.realtime.turn import AudioBuffer, Turn
from runtime.server.request_context import RequestTimer, note_failure
from runtime.server.service import Service

STEP = 1.0  # seconds of new sound after which a growing segment is decoded again
TRANSCRIPTION = "conversation.item.input_audio_transcription"
NOTHING = Decoded((), "", truncated=False)


@dataclass(frozen=True)
class _SegmentJob:
    """A segment with the engine: all of it or, while it grows, its first `heard` samples."""

    turn: Turn
    task: "asyncio.Task[Decoded]"
    heard: int | None


class TurnTranscriber:
    """Has the turns of one session decoded, one utterance at a time: a growing segment now and then, so that its words
    can be told while somebody speaks, and once more when it is whole."""

    def __init__(self, outgoing: Outgoing, service: Service, tape: AudioBuffer) -> None:
        self.turns: deque[Turn] = deque()  # those of which not all is told; the last one may be open
        self._out, self._service, self._tape = outgoing, service, tape
        self._job: _SegmentJob | None = None

    @property
    def decoding(self) -> "set[asyncio.Task[Decoded]]":
        """What to wait for before the next `advance`."""
        return {self._job.task} if self._job else set()

    @property
    def waiting(self) -> float:
        """Seconds of sound in segments that are whole and not decoded."""
        return sum(len(samples) for turn in self.turns for samples in turn.cuts) / SAMPLE_RATE

    async def advance(self) -> None:
        """Tell what the engine has decoded, and give it what is due. Raises EngineError and StoppingError."""
        while True:
            if self._is_stale():
                await self.give_up()
            if not self._job:
                if not await self._next():
                    return
            elif self._job.task.done():
                await self._heard()
            else:
                return

    async def finish(self) -> None:
        """Tell all words of all turns, of which none may be open."""
        await self.advance()
        while self._job:
            await asyncio.wait(self.decoding)
            await self.advance()

    async def give_up(self) -> None:
        """Take out of the engine what it has."""
        if self._job:
            job, self._job = self._job, None
            job.task.cancel()
            await asyncio.gather(job.task, return_exceptions=True)

    def _is_stale(self) -> bool:
        """Whether nobody needs the result any more: the turn was cleared, or the segment has become whole."""
        if not self._job:
            return False
        turn = self._job.turn
        grown = self._job.heard is not None and (bool(turn.cuts) or turn.end is not None)
        return grown or turn not in self.turns

    async def _next(self) -> bool:
        """Whether something was due of the oldest turn."""
        if not self.turns:
            return False
        turn = self.turns[0]
        if turn.cuts:
            if segment.is_silent(turn.cuts[0]):
                await self._whole(turn, NOTHING)
            else:
                self._submit(turn, turn.cuts[0], heard=None)
        elif turn.end is not None:
            self.turns.popleft()
            await self._completed(turn)
        else:
            grown = self._tape.end - turn.open
            if grown - turn.heard < STEP * SAMPLE_RATE or self._is_busy():
                return False
            turn.heard, samples = grown, self._tape.between(turn.open, self._tape.end)
            if segment.is_silent(samples):
                return False
            self._submit(turn, samples, heard=grown)
        return True

    def _is_busy(self) -> bool:
        """Whether the engine has so much to do that a segment better waits until it is whole."""
        status = self._service.transcriber.engine.status()
        return status.waiting >= status.most_together

    def _submit(self, turn: Turn, samples: Samples, *, heard: int | None) -> None:
        utterance = Utterance(samples, turn.prompt + turn.words.beginning, self._service.settings.max_new_tokens)
        self._job = _SegmentJob(turn, asyncio.ensure_future(self._service.decode(utterance, name=turn.id)), heard)

    async def _heard(self) -> None:
        """The engine is done with what it had. A growing segment that cannot be decoded may succeed when it is whole;
        what fails then is missing from the turn, which fails too."""
        assert self._job
        job, self._job = self._job, None
        failure = job.task.exception()
        if isinstance(failure, EngineError | StoppingError):
            raise copy.copy(failure)  # as what is raised holds on to the session, and the session to the task
        if isinstance(failure, KitError):
            if job.heard is None:
                job.turn.failure = failure
                await self._whole(job.turn, NOTHING)
            return
        decoded = job.task.result()
        if job.heard is None:
            await self._whole(job.turn, decoded)
        else:
            await self._tell(job.turn, job.turn.words.guess(decoded.text, heard=job.heard))

    async def _whole(self, turn: Turn, decoded: Decoded) -> None:
        """The oldest segment of a turn was decoded for the last time."""
        samples = turn.cuts.popleft()
        RequestTimer().decoded(len(samples) / SAMPLE_RATE, len(decoded.tokens))
        news = turn.words.finish(decoded.text, tokens=decoded.tokens, truncated=decoded.truncated)
        await self._tell(turn, news)

    async def _tell(self, turn: Turn, news: str) -> None:
        if news:
            await self._out.send(f"{TRANSCRIPTION}.delta", item_id=turn.id, content_index=0, delta=news)

    async def _completed(self, turn: Turn) -> None:
        if turn.failure:
            failure = from_kit(turn.failure, NAMES)
            note_failure(failure.status, failure.code)
            error = failure.body["error"]
            await self._out.send(f"{TRANSCRIPTION}.failed", item_id=turn.id, content_index=0, error=error)
            return
        heard = turn.words.transcript
        codes = [languages.code(name) for name in heard.languages]
        await self._out.send(
            f"{TRANSCRIPTION}.completed",
            item_id=turn.id,
            content_index=0,
            transcript=heard.text,
            usage={"type": "duration", "seconds": round(turn.seconds, 3)},
            languages=[{"code": code} for code in codes if code],
            truncated=heard.truncated,
        )
