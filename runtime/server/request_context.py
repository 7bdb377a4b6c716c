"""The request that is being answered: what its log line, the metrics and its errors need."""

from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic

from runtime.engines import Event
from runtime.server.metrics import Metrics
from runtime.transcript import Transcript

current_request: ContextVar["RequestContext | None"] = ContextVar("current", default=None)


@dataclass
class RequestContext:
    """A request or a session. `failure` is the code of its last error, `status` that error's HTTP status."""

    id: str
    metrics: Metrics
    failure: str = ""
    status: int | None = None
    audio_seconds: float = 0.0
    tokens: int = 0
    queue_seconds: float | None = None
    first_token_seconds: float | None = None
    language: str | None = None

    def record_failure(self, status: int, code: str | None) -> None:
        """Note an error, even if the answer has begun."""
        self.status, self.failure = status, code or str(status)


class RequestTimer:
    """Times one transcription from its acceptance, and counts it in the metrics; does nothing outside a request."""

    def __init__(self) -> None:
        self._context = current_request.get()
        self._accepted_at = monotonic()
        self._first_token_seen = False

    def audio_read_started(self) -> None:
        """Its turn has come: its audio is about to be read."""
        if self._context and self._context.queue_seconds is None:
            self._context.queue_seconds = monotonic() - self._accepted_at

    def on_event(self, event: Event) -> None:
        """Listen to the first utterance's events, in the engine's thread, for the first token."""
        if self._first_token_seen or not self._context or not isinstance(event, int):
            return
        self._first_token_seen = True
        seconds = monotonic() - self._accepted_at
        self._context.metrics.first_token(seconds)
        if self._context.first_token_seconds is None:
            self._context.first_token_seconds = seconds

    def segment_decoded(self, audio_seconds: float, tokens: int) -> None:
        """Add a segment's seconds of audio and its tokens to the metrics and the log line."""
        if self._context:
            self._context.metrics.segment_decoded(audio_seconds, tokens)
            self._context.audio_seconds += audio_seconds
            self._context.tokens += tokens

    def transcript_done(self, transcript: Transcript) -> None:
        """Record the language and the real-time factor."""
        if self._context:
            self._context.metrics.transcript_done(transcript.seconds, monotonic() - self._accepted_at)
            self._context.language = transcript.language


def record_failure(status: int, code: str | None) -> None:
    """Note an error of the current request, if there is one."""
    if context := current_request.get():
        context.record_failure(status, code)


def request_id() -> str | None:
    """The current request's id; None outside a request."""
    context = current_request.get()
    return context.id if context else None
