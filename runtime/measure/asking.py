"""One request for a transcript as a stream, with the times at which what of it came."""

import json
import time
from dataclasses import dataclass

import requests

from env.errors import KitError
from runtime.measure.remote import TRANSCRIPTIONS, Remote, ServerError
from runtime.measure.speech import Recording

DATA = b"data: "  # what an event's line begins with


@dataclass(frozen=True)
class Outcome:
    """What came of a request: seconds of its audio, the times in seconds at which it was due, at which its first text
    came (None where none did) and at which it ended, and the failure in few words that can be counted, empty for none.

    A transcript that was cut at the token limit is no failure: the time it took is as good as any.
    """

    audio_seconds: float
    due: float
    first: float | None
    ended: float
    failure: str = ""

    @property
    def latency(self) -> float:
        """Seconds from when it was due to its end."""
        return self.ended - self.due

    @property
    def first_token(self) -> float | None:
        """Seconds from when it was due to its first text."""
        return None if self.first is None else self.first - self.due

    @property
    def rtf(self) -> float:
        """Its latency for a second of its audio."""
        return self.latency / self.audio_seconds


def ask(server: Remote, sound: Recording, *, due: float | None = None) -> Outcome:
    """Ask for a transcript, and wait for its end. `due` is a time of `time.perf_counter`, None: now."""
    due = time.perf_counter() if due is None else due
    first = None
    try:
        first, failure = _streamed(server, sound)
    except ServerError as error:
        failure = f"{error.status} {error.code}".strip()
    except KitError as error:
        failure = error.reason
    return Outcome(sound.seconds, due, first, time.perf_counter(), failure)


def _streamed(server: Remote, sound: Recording) -> tuple[float | None, str]:
    """When the first text came, and what failed after it. Raises KitError."""
    first, last = None, b"{}"
    try:
        with server.post(
            TRANSCRIPTIONS, files={"file": ("clip.wav", sound.file)}, data={"stream": "true"}, stream=True
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith(DATA):
                    last = line.removeprefix(DATA)
                    if first is None and json.loads(last).get("delta"):
                        first = time.perf_counter()
        end = json.loads(last)
    except requests.RequestException as error:
        return first, f"a stream that broke off ({type(error).__name__})"
    except ValueError:
        return first, "a stream of something else"
    if end.get("type") == "transcript.text.done":
        return first, ""
    return first, end["error"]["code"] if "error" in end else "a stream without an end"
