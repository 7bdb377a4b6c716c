"""The one path from audio to transcript, used by every task: audio → segments → prompts → engine → text."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from env.loading import exports, under_project
from env.settings import DEMO, Settings
from runtime import audio, checkpoint, demo, device, segments, transcript
from runtime.audio import Audio, Limits
from runtime.checkpoint import Loaded
from runtime.device import Device
from runtime.engines import Decoding, Engine, Utterance
from runtime.errors import KitError
from runtime.prompt import Prompter
from runtime.segments import Segment
from runtime.transcript import Hypothesis, Transcript

Source = str | Path | bytes | Audio


@dataclass(frozen=True)
class Request:
    """What shall be transcribed: a path, a URL, a file's bytes or audio already decoded.

    `language` is a name in English or Chinese or a code, None for automatic; `context` holds hotwords or a passage that
    tells the model what to expect.
    """

    source: Source
    language: str | None = None
    context: str = ""


@dataclass(frozen=True)
class Failure:
    """A request that could not be transcribed, and why."""

    request: Request
    error: KitError


@dataclass(frozen=True)
class Transcriber:
    """A loaded model behind an engine, with the settings that cut and limit what it is given."""

    settings: Settings
    loaded: Loaded
    engine: Engine

    @property
    def device(self) -> Device:
        """Where the model runs."""
        return self.loaded.device

    @property
    def prompter(self) -> Prompter:
        """Writes prompts for the loaded model; it refuses languages and contexts that the model cannot be given."""
        return Prompter(self.loaded.processor, self.loaded.languages)

    def transcribe(self, source: Source, *, language: str | None = None, context: str = "") -> Transcript:
        """Transcribe one file. Raises KitError where its audio, language or context cannot be used."""
        (outcome,) = self.transcribe_all([Request(source, language, context)])
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def transcribe_all(
        self,
        requests: Iterable[Request],
        *,
        on_audio: Callable[[float], None] = lambda _: None,
        on_segment: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe many files, in order, decoding segments of several together; a bad file is a Failure in its place.

        `on_audio` is told the seconds of each file when it has been read, `on_segment` those of each segment when its
        text is there. At most two batches of
        segments beyond the file that is due are read ahead.
        """
        ahead = 2 * self.settings.max_batch
        underway: deque[Failure | _Job] = deque()
        for request in requests:
            begun = self._begin(request)
            if isinstance(begun, _Job):
                on_audio(begun.audio.seconds)
            underway.append(begun)
            while len(underway) > 1 and sum(job.size for job in underway if isinstance(job, _Job)) > ahead:
                yield self._finish(underway.popleft(), on_segment)
        while underway:
            yield self._finish(underway.popleft(), on_segment)

    def _begin(self, request: Request) -> "_Job | Failure":
        """Read the audio and hand its segments to the engine."""
        try:
            language = self.prompter.language(request.language)
            prompt = self.prompter.write(context=request.context, language=language)
            sound = self._read(request.source)
        except KitError as error:
            return Failure(request, error)
        cuts = segments.cut(sound.samples, longest=self.settings.segment_seconds)
        spoken = [cut for cut in cuts if not segments.is_silent(cut.samples)]
        utterances = [Utterance(cut.samples, prompt, self.settings.max_new_tokens) for cut in spoken]
        decodings = dict(zip((cut.start for cut in spoken), self.engine.submit(utterances), strict=True))
        return _Job(request, language, sound, [(cut, decodings.get(cut.start)) for cut in cuts])

    def _read(self, source: Source) -> Audio:
        return source if isinstance(source, Audio) else audio.load(source, limits=limits(self.settings))

    def _finish(self, job: "_Job | Failure", on_segment: Callable[[float], None]) -> Transcript | Failure:
        """Wait for the segments of a file and join them."""
        if isinstance(job, Failure):
            return job
        done: list[transcript.Segment] = []
        try:
            for cut, decoding in job.cuts:
                if decoding is None:  # silence never reaches the model, which might invent something
                    done.append(transcript.Segment(cut.start, cut.end, Hypothesis(None, "")))
                else:
                    decoded = decoding.result()
                    hypothesis = transcript.read(decoded.text, forced=job.language)
                    done.append(transcript.Segment(cut.start, cut.end, hypothesis, decoded.tokens, decoded.truncated))
                on_segment(cut.end - cut.start)
        except KitError as error:
            for _, decoding in job.cuts:
                if decoding is not None:
                    decoding.cancel()
            failure = KitError(job.audio.source, str(error))
            failure.__cause__ = error
            return Failure(job.request, failure)
        return Transcript(job.audio.source, job.audio.seconds, tuple(done))


@dataclass(frozen=True)
class _Job:
    """A file whose segments are with the engine; a segment without a decoding is silent."""

    request: Request
    language: str | None
    audio: Audio
    cuts: list[tuple[Segment, Decoding | None]]

    @property
    def size(self) -> int:
        return len(self.cuts)


def limits(settings: Settings) -> Limits:
    """What audio is accepted, from the settings."""
    return Limits(
        longest_seconds=settings.max_audio_seconds,
        url_seconds=settings.url_timeout_seconds,
        url_bytes=settings.url_max_mib * 2**20,
        allow_private_urls=settings.allow_private_urls,
    )


def model_directory(settings: Settings) -> Path:
    """The checkpoint's directory that ASR_MODEL means."""
    return demo.CHECKPOINT if settings.model == DEMO else under_project(settings.model)


@contextmanager
def open_transcriber(settings: Settings) -> Iterator[Transcriber]:
    """Load the model that the settings name and start its engine; stops it, drained, at the end.

    Raises KitError where the device cannot be used or the checkpoint is not whole.
    """
    checkpoint.check(model_directory(settings))  # before the device, which takes seconds to open
    where = device.open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile)
    loaded = checkpoint.load(model_directory(settings), device=where, dtype=settings.dtype)
    from runtime.engines.transformers import TransformersEngine  # imports torch, which the device must precede

    engine = TransformersEngine(loaded, max_batch=settings.max_batch)
    engine.start()
    try:
        yield Transcriber(settings, loaded, engine)
    except BaseException:
        engine.stop(drain=False)
        raise
    engine.stop()
