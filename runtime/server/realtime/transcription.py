"""Transcribes the turns of a session, oldest first, and sends their words as soon as they are confirmed."""

import asyncio
import copy
from collections import deque
from dataclasses import dataclass

from env.errors import KitError
from runtime import languages
from runtime.audio import SAMPLE_RATE, Samples, segment
from runtime.engines import Decoded, EngineError, Utterance
from runtime.server.errors import StoppingError, to_api_error
from runtime.server.realtime.events import EventSender
from runtime.server.realtime.session_config import REALTIME_ERROR_FIELDS
from runtime.server.realtime.turn import AudioBuffer, Turn
from runtime.server.request_context import RequestTimer, record_failure
from runtime.server.service import Service

PARTIAL_INTERVAL = 1.0  # seconds of new audio after which a growing segment is decoded again
EVENT_PREFIX = "conversation.item.input_audio_transcription"
NOT_DECODED = Decoded((), "", truncated=False)


@dataclass(frozen=True)
class _SegmentJob:
    """A segment that is being decoded: the whole of it, or the first `partial_samples` samples of a growing one."""

    turn: Turn
    task: "asyncio.Task[Decoded]"
    partial_samples: int | None


class TurnTranscriber:
    """Decodes a session's turns, one utterance at a time: a growing segment every PARTIAL_INTERVAL seconds, for partial
    results, and once more when it is complete."""

    def __init__(self, sender: EventSender, service: Service, buffer: AudioBuffer) -> None:
        self.turns: deque[Turn] = deque()  # not completely sent; the last one may be open
        self._sender, self._service, self._buffer = sender, service, buffer
        self._job: _SegmentJob | None = None

    @property
    def decoding(self) -> "set[asyncio.Task[Decoded]]":
        """The task to wait for before the next `advance`, if any."""
        return {self._job.task} if self._job else set()

    @property
    def backlog_seconds(self) -> float:
        """Seconds of audio in complete segments that are not decoded."""
        return sum(len(samples) for turn in self.turns for samples in turn.cuts) / SAMPLE_RATE

    async def advance(self) -> None:
        """Send what was decoded, and submit what is due. Raises EngineError and StoppingError."""
        while True:
            if self._is_stale():
                await self.cancel()
            if not self._job:
                if not await self._submit_next():
                    return
            elif self._job.task.done():
                await self._collect()
            else:
                return

    async def finish(self) -> None:
        """Transcribe all turns to their end; none may be open."""
        await self.advance()
        while self._job:
            await asyncio.wait(self.decoding)
            await self.advance()

    async def cancel(self) -> None:
        """Take the current utterance out of the engine."""
        if self._job:
            job, self._job = self._job, None
            job.task.cancel()
            await asyncio.gather(job.task, return_exceptions=True)

    def _is_stale(self) -> bool:
        """Whether the current result is no longer needed: the turn was cleared, or the growing segment is complete."""
        if not self._job:
            return False
        turn = self._job.turn
        grown = self._job.partial_samples is not None and (bool(turn.cuts) or turn.end is not None)
        return grown or turn not in self.turns

    async def _submit_next(self) -> bool:
        """Process the oldest turn's next step; False if nothing is due."""
        if not self.turns:
            return False
        turn = self.turns[0]
        if turn.cuts:
            if segment.is_silent(turn.cuts[0]):
                await self._segment_done(turn, NOT_DECODED)
            else:
                self._submit(turn, turn.cuts[0], partial_samples=None)
        elif turn.end is not None:
            self.turns.popleft()
            await self._send_result(turn)
        else:
            grown = self._buffer.end - turn.open
            if grown - turn.decoded_samples < PARTIAL_INTERVAL * SAMPLE_RATE or self._is_busy():
                return False
            turn.decoded_samples, samples = grown, self._buffer.between(turn.open, self._buffer.end)
            if segment.is_silent(samples):
                return False
            self._submit(turn, samples, partial_samples=grown)
        return True

    def _is_busy(self) -> bool:
        """Whether the engine's queue is so long that only complete segments are worth decoding."""
        status = self._service.transcriber.engine.status()
        return status.waiting >= status.most_together

    def _submit(self, turn: Turn, samples: Samples, *, partial_samples: int | None) -> None:
        utterance = Utterance(samples, turn.prompt + turn.partial.prompt_prefix, self._service.settings.max_new_tokens)
        task = asyncio.ensure_future(self._service.decode(utterance, name=turn.id))
        self._job = _SegmentJob(turn, task, partial_samples)

    async def _collect(self) -> None:
        """Take the result of the current utterance. A failed partial result is ignored, as the complete segment may
        succeed; a failed complete segment fails its turn."""
        assert self._job
        job, self._job = self._job, None
        failure = job.task.exception()
        if isinstance(failure, EngineError | StoppingError):
            raise copy.copy(failure)  # as what is raised holds on to the session, and the session to the task
        if isinstance(failure, KitError):
            if job.partial_samples is None:
                job.turn.failure = failure
                await self._segment_done(job.turn, NOT_DECODED)
            return
        decoded = job.task.result()
        if job.partial_samples is None:
            await self._segment_done(job.turn, decoded)
        else:
            await self._send_delta(job.turn, job.turn.partial.update(decoded.text, samples=job.partial_samples))

    async def _segment_done(self, turn: Turn, decoded: Decoded) -> None:
        """The oldest segment of the turn is decoded for the last time."""
        samples = turn.cuts.popleft()
        RequestTimer().segment_decoded(len(samples) / SAMPLE_RATE, len(decoded.tokens))
        new_text = turn.partial.finish_segment(decoded.text, tokens=decoded.tokens, truncated=decoded.truncated)
        await self._send_delta(turn, new_text)

    async def _send_delta(self, turn: Turn, new_text: str) -> None:
        if new_text:
            await self._sender.send(f"{EVENT_PREFIX}.delta", item_id=turn.id, content_index=0, delta=new_text)

    async def _send_result(self, turn: Turn) -> None:
        if turn.failure:
            failure = to_api_error(turn.failure, REALTIME_ERROR_FIELDS)
            record_failure(failure.status, failure.code)
            error = failure.body["error"]
            await self._sender.send(f"{EVENT_PREFIX}.failed", item_id=turn.id, content_index=0, error=error)
            return
        transcript = turn.partial.transcript
        codes = [languages.code(name) for name in transcript.languages]
        await self._sender.send(
            f"{EVENT_PREFIX}.completed",
            item_id=turn.id,
            content_index=0,
            transcript=transcript.text,
            usage={"type": "duration", "seconds": round(turn.seconds, 3)},
            languages=[{"code": code} for code in codes if code],
            truncated=transcript.truncated,
        )
