"""Hours of mixed load: whether answers stay right, latency stays as it was and memory does not grow."""

import base64
import io
import json
import re
import statistics
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import av
import numpy as np
import requests
from av.audio.stream import AudioStream

from runtime.audio import SAMPLE_RATE, Samples
from runtime.measure.client import RemoteServer, open_session
from runtime.measure.synthetic_audio import joined

TRANSCRIPTIONS, CHAT = "/v1/audio/transcriptions", "/v1/chat/completions"
PATIENCE = 600.0  # seconds for an answer
SECONDS = (1.0, 2.5, 4.0, 6.0, 9.0, 13.0, 20.0)
# FFmpeg's names of a container and the coding in it.
FORMATS = (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("webm", "libopus"))

LOOK_EVERY = 1.0  # seconds between two looks at the server's memory
BREATH = 1.0  # seconds that a client waits after a request without an answer
ASKING = 10.0  # seconds for an answer about the server itself
ENOUGH = 30  # answers in each third of the time, for their latencies to be compared
JUDGED = 600.0  # seconds from which on drift and growth are held against a server: before, caches fill
MOST_DRIFT = 1.5  # times the latency of the first third
MOST_GROWTH = 64 << 20  # bytes from the end of the first third to the end of the last
TIDES = 20  # parts of the time, of each of which the least memory counts: more is what the allocator keeps for a while
MIB_AN_HOUR = 3600 / 2**20
RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


class WrongAnswerError(Exception):
    """An answer that is not what it should be, in few words, so that they can be counted."""


@dataclass(frozen=True)
class SoakConnection:
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


def whole(server: SoakConnection, file: bytes) -> None:
    """A transcript at once."""
    answer = server.post(TRANSCRIPTIONS, files={"file": file})
    if "text" not in answer.json():
        raise WrongAnswerError("no text")


def streamed(server: SoakConnection, file: bytes) -> None:
    """A transcript as it grows."""
    with server.post(TRANSCRIPTIONS, files={"file": file}, data={"stream": "true"}, stream=True) as answer:
        events = [line for line in answer.iter_lines() if line]
    if not events or json.loads(events[-1].removeprefix(b"data: ")).get("type") != "transcript.text.done":
        raise WrongAnswerError("a stream without an end")


def hung_up(server: SoakConnection, file: bytes) -> None:
    """A transcript that nobody waits for."""
    with server.post(TRANSCRIPTIONS, files={"file": file}, data={"stream": "true"}, stream=True) as answer:
        next(answer.iter_content(1))


def chat(server: SoakConnection, file: bytes) -> None:
    """A transcript as vLLM's users ask for it."""
    content = {"type": "input_audio", "input_audio": {"data": base64.b64encode(file).decode()}}
    answer = server.post(CHAT, json={"messages": [{"role": "user", "content": [content]}]})
    if not isinstance(answer.json()["choices"][0]["message"]["content"], str):
        raise WrongAnswerError("no text")


def broken(server: SoakConnection, file: bytes) -> None:
    """A file that breaks off, which shall be refused."""
    server.post(TRANSCRIPTIONS, expected=400, files={"file": file[: len(file) // 2 + 1]})


# How each kind of request is called, what it does, and how often it comes.
KINDS: dict[str, tuple[Callable[[SoakConnection, bytes], None], int]] = {
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


@dataclass
class RequestTally:
    """The requests of one kind: when each began and how long it took, in seconds, and the failures by their words."""

    begun: "array[float]" = field(default_factory=lambda: array("f"))
    taken: "array[float]" = field(default_factory=lambda: array("f"))
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class SoakReport:
    """What a soak of so many seconds found; `memory` has the time and the server's resident bytes, look by look."""

    seconds: float
    tallies: dict[str, RequestTally]
    memory: Sequence[tuple[float, float]]

    @property
    def asked(self) -> int:
        """Requests."""
        return sum(len(tally.begun) for tally in self.tallies.values())

    @property
    def failures(self) -> Counter[str]:
        """Failures by their words."""
        return sum((tally.failures for tally in self.tallies.values()), Counter())

    @property
    def drift(self) -> float | None:
        """How many times as long an answer takes in the last third as in the first, by the medians; None for few."""
        first, last = (self._latencies(third * self.seconds / 3) for third in (0, 2))
        if min(len(first), len(last)) < ENOUGH:
            return None
        return statistics.median(last) / statistics.median(first)

    @property
    def slope(self) -> float | None:
        """MiB an hour by which memory grows after the first third, in which caches fill; None for too few looks."""
        lowest = self._lowest
        if len(lowest) < 3:
            return None
        times, sizes = zip(*lowest, strict=True)
        return statistics.linear_regression(times, sizes).slope * MIB_AN_HOUR

    @property
    def growth(self) -> float:
        """Bytes by which memory has grown since the first third, by the line through the lowest looks."""
        return (self.slope or 0) / MIB_AN_HOUR * self.seconds * 2 / 3

    @property
    def faults(self) -> list[str]:
        """What speaks against the server, in words."""
        found = [] if self.asked else ["nothing was asked"]
        if failed := self.failures.total():
            found.append(f"{failed} of {self.asked} requests failed")
        settled = self.seconds >= JUDGED
        if settled and self.drift and self.drift > MOST_DRIFT:
            found.append(f"answers take {self.drift:.2f} times as long as at first, at most {MOST_DRIFT} expected")
        if settled and self.growth > MOST_GROWTH:
            found.append(f"memory grew by {self.growth / 2**20:.0f} MiB, at most {MOST_GROWTH >> 20} expected")
        return found

    @property
    def _lowest(self) -> list[tuple[float, float]]:
        """The look that saw the least, of each part of the time after the first third."""
        tides: dict[int, tuple[float, float]] = {}
        first = self.seconds / 3
        for passed, size in self.memory:
            part = min(int(TIDES * (passed - first) / (self.seconds - first)), TIDES - 1)
            if passed > first and (part not in tides or size < tides[part][1]):
                tides[part] = (passed, size)
        return list(tides.values())

    def _latencies(self, start: float) -> list[float]:
        """Of the third of the time that begins at `start`."""
        return [
            taken
            for tally in self.tallies.values()
            for begun, taken in zip(tally.begun, tally.taken, strict=True)
            if start <= begun < start + self.seconds / 3
        ]


def soak(
    url: str,
    files: Sequence[bytes],
    *,
    seconds: float,
    clients: int,
    key: str | None = None,
    on_time: Callable[[float], None] = lambda _: None,
) -> SoakReport:
    """Ask the server at `url` for so long, by so many clients at once. `on_time` hears of seconds that have passed.

    Ctrl-C ends it early, with what was found so far. Raises KitError where the server is not ready.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with RemoteServer(url, key=key) as server:
        server.check_ready()
    soaking = _Soak(server.url, headers, files)
    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(soaking.ask, Random(number)) for number in range(clients)]
        with suppress(KeyboardInterrupt):
            while (passed := soaking.passed) < seconds:
                soaking.over.wait(min(LOOK_EVERY, seconds - passed))
                soaking.look()
                on_time(soaking.passed - passed)
        soaking.over.set()
        whole = soaking.passed
        for client in asking:
            client.result()
    return SoakReport(whole, soaking.tallies, soaking.memory)


class _Soak:
    """A soak that goes on until it is over."""

    def __init__(self, url: str, headers: dict[str, str], files: Sequence[bytes]) -> None:
        self._url, self._headers, self._files = url, headers, files
        self._begun = time.monotonic()
        self._changing = threading.Lock()
        self.tallies = {kind: RequestTally() for kind in KINDS}
        self.memory: list[tuple[float, float]] = []
        self.over = threading.Event()

    @property
    def passed(self) -> float:
        return time.monotonic() - self._begun

    def ask(self, chance: Random) -> None:
        """One client: the next request when the last is answered."""
        with open_session(self._url) as session:
            session.headers.update(self._headers)
            server = SoakConnection(self._url, session)
            while not self.over.is_set():
                self._ask_once(server, drawn(chance), chance.choice(self._files))

    def _ask_once(self, server: SoakConnection, kind: str, file: bytes) -> None:
        begun, failure = self.passed, ""
        try:
            KINDS[kind][0](server, file)
        except WrongAnswerError as error:
            failure = str(error)
        except (requests.RequestException, ValueError) as error:
            failure = f"no answer: {type(error).__name__}"
        with self._changing:
            tally = self.tallies[kind]
            tally.begun.append(begun)
            tally.taken.append(self.passed - begun)
            if failure:
                tally.failures[f"{kind}: {failure}"] += 1
        if failure.startswith("no answer"):
            self.over.wait(BREATH)

    def look(self) -> None:
        """Note the server's memory, if it tells."""
        with suppress(requests.RequestException), open_session(self._url) as session:
            answer = session.get(f"{self._url}/metrics", headers=self._headers, timeout=ASKING)
            if found := RESIDENT.search(answer.text):
                self.memory.append((self.passed, float(found[1])))
