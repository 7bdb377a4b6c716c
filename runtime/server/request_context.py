"""What is known of a request while it is answered: for its line in the log, the metrics, and whatever is said of it."""

from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic

from runtime.engines import Event
from runtime.server.metrics import Metrics
from runtime.transcript import Transcript

current: ContextVar["RequestContext | None"] = ContextVar("current", default=None)


@dataclass
class RequestContext:
    """A request or a session. `failure` is the code of what went wrong last, `status` its HTTP status."""

    id: str
    metrics: Metrics
    failure: str = ""
    status: int | None = None
    audio_seconds: float = 0.0
    tokens: int = 0
    queue_seconds: float | None = None
    first_token_seconds: float | None = None
    language: str | None = None

    def failed(self, status: int, code: str | None) -> None:
        """It is answered with an error, perhaps after the head of the answer is gone."""
        self.status, self.failure = status, code or str(status)


class RequestTimer:
    """One transcription, from the moment it is accepted; of no request, if none is being answered here."""

    def __init__(self) -> None:
        self._entry = current.get()
        self._since = monotonic()
        self._begun = False

    def taken(self) -> None:
        """Its turn has come: its audio is about to be read."""
        if self._entry and self._entry.queue_seconds is None:
            self._entry.queue_seconds = monotonic() - self._since

    def begun(self, event: Event) -> None:
        """Listens to the first utterance of it, in the engine's thread: of its tokens only the first counts."""
        if self._begun or not self._entry or not isinstance(event, int):
            return
        self._begun = True
        seconds = monotonic() - self._since
        self._entry.metrics.began(seconds)
        if self._entry.first_token_seconds is None:
            self._entry.first_token_seconds = seconds

    def decoded(self, audio_seconds: float, tokens: int) -> None:
        """A segment is done."""
        if self._entry:
            self._entry.metrics.decoded(audio_seconds, tokens)
            self._entry.audio_seconds += audio_seconds
            self._entry.tokens += tokens

    def done(self, transcript: Transcript) -> None:
        """The transcript is there."""
        if self._entry:
            self._entry.metrics.transcribed(transcript.seconds, monotonic() - self._since)
            self._entry.language = transcript.language


def note_failure(status: int, code: str | None) -> None:
    """The request that is being answered, if one is, fails."""
    if entry := current.get():
        entry.failed(status, code)


def request_id() -> str | None:
    """The id of the request that is being answered, None where none is."""
    entry = current.get()
    return entry.id if entry else None
