"""What clients ask of a server all day: speech of several lengths in several formats, whole and streamed, and what goes
wrong on the way. Each request is one whose right answer is known."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import av
import numpy as np
import requests
from av.audio.stream import AudioStream

from runtime.audio import SAMPLE_RATE, Samples
from runtime.measure.speech import joined

TRANSCRIPTIONS, CHAT = "/v1/audio/transcriptions", "/v1/chat/completions"
PATIENCE = 600.0  # seconds for an answer
SECONDS = (1.0, 2.5, 4.0, 6.0, 9.0, 13.0, 20.0)
# FFmpeg's names of a container and the coding in it.
FORMATS = (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("webm", "libopus"))


class WrongAnswerError(Exception):
    """An answer that is not what it should be, in few words, so that they can be counted."""


@dataclass(frozen=True)
class Server:
    """Where to ask, with a connection of one's own."""

    url: str
    session: requests.Session

    def post(self, path: str, *, expected: int = 200, **body: Any) -> requests.Response:
        """One request. Raises WrongAnswerError for another status, requests.RequestException for no answer."""
        answer = self.session.post(self.url + path, timeout=PATIENCE, **body)
        if answer.status_code != expected:
            with answer:
                raise WrongAnswerError(f"{answer.status_code} instead of {expected}{_code(answer)}")
        return answer


def recordings() -> list[bytes]:
    """Files of 1 to 20 s, joined from the bundled clips, in every format by turns."""
    forms = [(seconds, form) for form in FORMATS for seconds in SECONDS]
    return [_written(joined(seconds, first=number), *form) for number, (seconds, form) in enumerate(forms)]


def whole(server: Server, file: bytes) -> None:
    """A transcript at once."""
    answer = server.post(TRANSCRIPTIONS, files={"file": file})
    if "text" not in answer.json():
        raise WrongAnswerError("no text")


def streamed(server: Server, file: bytes) -> None:
    """A transcript as it grows."""
    with server.post(TRANSCRIPTIONS, files={"file": file}, data={"stream": "true"}, stream=True) as answer:
        events = [line for line in answer.iter_lines() if line]
    if not events or json.loads(events[-1].removeprefix(b"data: ")).get("type") != "transcript.text.done":
        raise WrongAnswerError("a stream without an end")


def hung_up(server: Server, file: bytes) -> None:
    """A transcript that nobody waits for."""
    with server.post(TRANSCRIPTIONS, files={"file": file}, data={"stream": "true"}, stream=True) as answer:
        next(answer.iter_content(1))


def chat(server: Server, file: bytes) -> None:
    """A transcript as vLLM's users ask for it."""
    content = {"type": "input_audio", "input_audio": {"data": base64.b64encode(file).decode()}}
    answer = server.post(CHAT, json={"messages": [{"role": "user", "content": [content]}]})
    if not isinstance(answer.json()["choices"][0]["message"]["content"], str):
        raise WrongAnswerError("no text")


def broken(server: Server, file: bytes) -> None:
    """A file that breaks off, which shall be refused."""
    server.post(TRANSCRIPTIONS, expected=400, files={"file": file[: len(file) // 2 + 1]})


# How each kind of request is called, what it does, and how often it comes.
KINDS: dict[str, tuple[Callable[[Server, bytes], None], int]] = {
    "whole": (whole, 8),
    "streamed": (streamed, 4),
    "chat": (chat, 2),
    "hung up": (hung_up, 1),
    "broken": (broken, 1),
}


def drawn(chance: Random) -> str:
    """A kind of request, by chance."""
    return chance.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]


def _written(samples: Samples, container: str, coding: str) -> bytes:
    file = io.BytesIO()
    rate = 48_000 if coding == "libopus" else SAMPLE_RATE
    with av.open(file, mode="w", format=container) as out:
        stream = out.add_stream(coding, rate=rate, layout="mono")
        assert isinstance(stream, AudioStream)
        integers = np.round(np.repeat(samples, rate // SAMPLE_RATE) * 32767).astype(np.int16)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(integers, format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def _code(answer: requests.Response) -> str:
    """The error's code, in brackets, if there is one."""
    try:
        return f" ({answer.json()['error']['code']})"
    except (ValueError, KeyError, TypeError):
        return ""
