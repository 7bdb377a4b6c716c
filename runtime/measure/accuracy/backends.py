"""Sound that is read while other sound is transcribed.

An engine then finds whole batches to choose from, however slow the disk or the coding is. Beside the speed it keeps the
figures steady: what stands together in a batch is padded together, which moves a word on the edge now and then.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from env.errors import KitError
from env.settings import Settings
from runtime import audio
from runtime.audio import Audio, Limits
from runtime.audio.wav import wav_bytes
from runtime.measure import records
from runtime.measure.accuracy.dataset import Item
from runtime.measure.accuracy.journal import UtteranceOutcome
from runtime.measure.accuracy.run import Backend
from runtime.measure.client import RemoteServer, ServerError
from runtime.transcriber import FailedRequest, Request, Source, Transcriber, limits, model_directory, open_transcriber
from runtime.transcript import Transcript

SECONDS = 600  # of audio that is held at most, 38 MB, beside the one sound that is read

MOST_CLIENTS = 64  # each holds a file, and a connection
BATCHES = 2  # that clients keep a server's engine supplied with, one decoded and one that waits
# What a server says of itself or of who asks, not of the audio: other utterances would fare no better.
NOT_THE_AUDIO = {401, 403, 404, 429, 503}


@dataclass(frozen=True)
class Ready:
    """Sound that was read, or the failure to, which is told when its turn has come."""

    found: "Future[Audio]"

    def load(self, *, limits: Limits) -> Audio:  # noqa: ARG002 - kept when it was read
        """Raises what reading it raised."""
        return self.found.result()


@contextmanager
def ahead(sources: Sequence[Source], read: Callable[[Source], Audio]) -> Iterator[Iterator[Ready]]:
    """All sources in order, read by a thread that ends with the block."""
    room = threading.Semaphore(SECONDS)

    def work(source: Source) -> Audio:
        found = read(source)
        for _ in range(_seconds(found)):
            room.acquire()
        return found

    pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    coming = deque(pool.submit(work, source) for source in sources)

    def ready() -> Iterator[Ready]:
        while coming:
            future = coming.popleft()
            if future.exception() is None:
                room.release(_seconds(future.result()))
            yield Ready(future)

    try:
        yield ready()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        room.release(SECONDS)
        pool.shutdown()


def _seconds(sound: Audio) -> int:
    """What it takes of SECONDS."""
    return min(SECONDS, 1 + int(sound.seconds))


@contextmanager
def in_process(settings: Settings) -> Iterator[Backend]:
    """The model that the settings name, loaded. Raises what `open_transcriber` raises."""
    with open_transcriber(settings) as transcriber:
        yield of(transcriber)


def of(transcriber: Transcriber) -> Backend:
    """A model that is loaded."""
    settings = transcriber.settings
    basis = {
        "weights": _mark(settings),
        "segment seconds": f"{settings.segment_seconds:g}",
        "tokens per segment": str(settings.max_new_tokens),
    }
    return Backend(records.of(transcriber), basis, partial(_heard, transcriber))


@contextmanager
def over_http(url: str, settings: Settings) -> Iterator[Backend]:
    """A server, asked by so many clients that its engine always has whole batches. Raises what `Remote` raises."""
    with RemoteServer(url) as server:
        server.check_ready()
        told = server.info()
        allowed, together = told["limits"]["requests"], told["queue"]["engine"]["most_together"]
        clients = max(1, min(MOST_CLIENTS, allowed, BATCHES * together))
        basis = {
            "segment seconds": f"{told['limits']['segment_seconds']:g}",
            "tokens per segment": str(told["limits"]["tokens_per_segment"]),
        }
        yield Backend(records.of_server(server.url, told), basis, partial(_asked, server, limits(settings), clients))


def sound(source: Source, within: Limits) -> Audio:
    """An utterance's audio. Raises KitError where it cannot be read."""
    if isinstance(source, Audio):
        return source
    if isinstance(source, str | Path | bytes):
        return audio.load(source, limits=within)
    return source.load(limits=within)


def _heard(transcriber: Transcriber, items: Sequence[Item], forced: bool) -> Generator[UtteranceOutcome, None, None]:
    within = limits(transcriber.settings)
    with ahead([item.source for item in items], partial(sound, within=within)) as sounds:
        requests = (
            Request(ready, item.language if forced else None) for item, ready in zip(items, sounds, strict=True)
        )
        for item, answer in zip(items, transcriber.transcribe_all(requests), strict=True):
            yield _outcome(item, answer)


def _outcome(item: Item, answer: Transcript | FailedRequest) -> UtteranceOutcome:
    if isinstance(answer, FailedRequest):
        return UtteranceOutcome(item.name, failure=str(answer.error))
    return UtteranceOutcome(item.name, answer.text, answer.language, answer.seconds, answer.truncated, answer.repeated)


def _asked(
    server: RemoteServer, within: Limits, clients: int, items: Sequence[Item], forced: bool
) -> Generator[UtteranceOutcome, None, None]:
    pool = ThreadPoolExecutor(clients)
    try:
        for answered in as_completed([pool.submit(_ask, server, within, item, forced) for item in items]):
            yield answered.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _ask(server: RemoteServer, within: Limits, item: Item, forced: bool) -> UtteranceOutcome:
    """What the server heard. Raises KitError where it would answer no other utterance either."""
    try:
        file = _file(item.source, within)
    except KitError as error:
        return UtteranceOutcome(item.name, failure=str(error))
    try:
        answer = server.transcribe(file, language=item.language if forced else None)
    except ServerError as error:
        if error.status in NOT_THE_AUDIO:
            raise
        return UtteranceOutcome(item.name, failure=f"{item.name}: {error.reason}")
    truncated, repeated = (answer.fields.get(name, 0) for name in ("truncated", "repeated_characters"))
    return UtteranceOutcome(
        item.name, answer.text, answer.language, answer.seconds or 0.0, bool(truncated), int(repeated)
    )


def _file(source: Source, within: Limits) -> bytes:
    """What is sent: a file as it is, other audio as WAV whose samples are exactly those that a process would hear."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | Path) and "://" not in str(source):
        try:
            return Path(source).read_bytes()
        except OSError as error:
            raise KitError(str(source), f"cannot be read: {error.strerror}") from None
    return wav_bytes(sound(source, within).samples, floats=True)


def _mark(settings: Settings) -> str:
    """What changes when other weights take their place: names, sizes and times of their files."""
    files = sorted(model_directory(settings).glob("*.safetensors"))
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
