"""The one path from audio to transcript, used by every task: audio → segments → prompts → engine → text."""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from env.errors import KitError
from env.groups.vllm import HOTWORD_TOKENS, TOKENS_PER_SECOND, segment_tokens
from env.settings import DEMO, Settings
from env.sources import under_project
from runtime import audio, demo, sandbox, transcript
from runtime.audio import SAMPLE_RATE, Audio, Limits, Samples, voice_activity
from runtime.audio import segment as segments
from runtime.audio.segment import AudioSegment
from runtime.engines import Decoded, Decoding, Engine, EngineError, Observer, Utterance, factory
from runtime.host import npu_host
from runtime.model.device import Device
from runtime.model.prompt import ASR_TEXT, MAX_CONTEXT_TOKENS, UNFINISHED, PromptBuilder, Tokenizer
from runtime.progress import status_line
from runtime.transcript import Hypothesis, Span, Transcript

if TYPE_CHECKING:
    from runtime.model.load import Loaded


class StoredAudio(Protocol):
    """Audio that is kept elsewhere, such as a spooled upload, and decoded when its turn comes."""

    def load(self, *, limits: Limits) -> Audio:
        """Decode it, as `runtime.audio.load` does, with the same KitErrors."""


DETOKENIZE_WINDOW = 64  # tokens
MAX_SEGMENTS_AHEAD = 64  # segments read that no engine decodes yet: of 30 s, 123 MB of samples

Source = str | Path | bytes | Audio | StoredAudio


@dataclass(frozen=True)
class Request:
    """What to transcribe: a path, a URL, a file's bytes, decoded audio, or audio stored elsewhere.

    `language` is a name in English or Chinese or a code, None for automatic; `context` holds hotwords or a passage that
    tells the model what to expect. With `timed`, each segment gets its spans of speech, as captions need them.
    `max_tokens` limits the tokens of all segments together.
    """

    source: Source
    language: str | None = None
    context: str = ""
    timed: bool = False
    max_tokens: int | None = None


@dataclass(frozen=True)
class FailedRequest:
    """A request that could not be transcribed, and why."""

    request: Request
    error: KitError


@dataclass(frozen=True)
class Prepared:
    """A request whose audio is decoded and split: an utterance for each segment, None for a silent one."""

    request: Request
    language: str | None
    tokenizer: Tokenizer
    audio: Audio
    cuts: tuple[AudioSegment, ...]
    utterances: tuple[Utterance | None, ...]

    @property
    def spoken(self) -> list[Utterance]:
        """The utterances for the engine, in order, silent segments left out."""
        return [utterance for utterance in self.utterances if utterance]

    def to_segment(self, cut: AudioSegment, decoded: Decoded | None) -> transcript.Segment:
        """The transcript's segment for what was decoded of a cut.

        `decoded` is None for silence, which is never decoded, as the model might invent text. Detecting speech in a
        `timed` one takes time: on an event loop, call this in a thread.
        """
        first, last = round(cut.start * SAMPLE_RATE), round(cut.end * SAMPLE_RATE)
        start, end = self.audio.time_at(first), self.audio.time_at(last)
        if decoded is None:
            return transcript.Segment(start, end, Hypothesis(None, ""))
        hypothesis = transcript.parse(decoded.text, forced=self.language)
        timed = self.request.timed and hypothesis.text
        return transcript.Segment(
            start,
            end,
            hypothesis,
            decoded.tokens,
            decoded.truncated,
            decoded.avg_logprob,
            tuple(self._speech(cut.samples, first)) if timed else (),
            self._token_ends(decoded, hypothesis.text) if timed else (),
        )

    def _speech(self, samples: Samples, first: int) -> Iterator[Span]:
        """Spans of speech, in seconds of the audio, in samples (n,) that begin at the audio's sample `first`."""
        for start, end in voice_activity.speech(samples):
            yield Span(self.audio.time_at(first + start), self.audio.time_at(first + end))

    def _token_ends(self, decoded: Decoded, text: str) -> tuple[int, ...]:
        """Length of the text, in characters, after each token; 0 within the header."""
        tag = decoded.text.find(ASR_TEXT)
        header = max(decoded.text.find(text[:1], 0 if self.language or tag < 0 else tag + len(ASR_TEXT)), 0)
        ends: list[int] = []
        first, before = 0, 0  # several tokens are detokenized together, as one may be part of a character
        for count in range(1, len(decoded.tokens) + 1):
            piece = self.tokenizer.text(decoded.tokens[first:count])
            ends.append(before + len(piece))
            if count - first >= DETOKENIZE_WINDOW and not piece.endswith(UNFINISHED):
                first, before = count, ends[-1]
        return tuple(min(max(end - header, 0), len(text)) for end in ends)

    def to_transcript(self, done: Iterable[transcript.Segment]) -> Transcript:
        """The transcript of all segments, in order, cut off at the request's `max_tokens`."""
        audio = sum(math.ceil(utterance.seconds * TOKENS_PER_SECOND) for utterance in self.spoken)
        texts = [len(self.tokenizer.backend(utterance.prompt)["input_ids"]) - 1 for utterance in self.spoken[:1]]
        return Transcript(
            self.audio.source,
            self.audio.seconds,
            tuple(self._limited(done)),
            prompt_tokens=audio + sum(texts) * len(self.spoken),
            audio_tokens=audio,
        )

    def _limited(self, done: Iterable[transcript.Segment]) -> Iterator[transcript.Segment]:
        left = sys.maxsize if self.request.max_tokens is None else self.request.max_tokens
        for segment in done:
            if len(segment.tokens) > left:
                tokens = segment.tokens[:left]
                hypothesis = transcript.parse(self.tokenizer.text(tokens), forced=self.language)
                yield replace(segment, hypothesis=hypothesis, tokens=tokens, truncated=True)
                left = 0
            else:
                yield segment
                left -= len(segment.tokens)


@dataclass(frozen=True)
class Transcriber:
    """Transcribes audio with an engine; the settings split audio and limit its length and tokens."""

    settings: Settings
    engine: Engine

    @property
    def device(self) -> Device:
        """The device on which the engine runs the model."""
        return self.engine.device

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the loaded checkpoint."""
        return self.engine.tokenizer

    @property
    def prompt_builder(self) -> PromptBuilder:
        """A builder of prompts for the model; it refuses languages and contexts that the model does not support."""
        return PromptBuilder(self.tokenizer, context_limit(self.settings, self.tokenizer))

    @property
    def loaded(self) -> "Loaded":
        """The model in this process. Raises KitError where the engine has it elsewhere."""
        if self.engine.loaded is None:
            reason = "has the model in a process of its own, where this cannot be looked at"
            raise KitError(f"the engine {self.engine.name}", reason, "set ASR_ENGINE=transformers")
        return self.engine.loaded

    def transcribe(
        self, source: Source, *, language: str | None = None, context: str = "", timed: bool = False
    ) -> Transcript:
        """Transcribe one file. Raises KitError where its audio, language or context cannot be used."""
        (outcome,) = self.transcribe_all([Request(source, language, context, timed)])
        if isinstance(outcome, FailedRequest):
            raise outcome.error
        return outcome

    def transcribe_all(
        self,
        requests: Iterable[Request],
        *,
        on_audio: Callable[[float], None] = lambda _: None,
        on_segment: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Transcript | FailedRequest]:
        """Transcribe many files, in order, decoding segments of several together; a bad file is a FailedRequest in its
        place.

        `on_audio` is called with the seconds of each file when it has been decoded, `on_segment` with those of each
        segment when it is transcribed. Beyond the file that is due, a full batch is read ahead and up to
        MAX_SEGMENTS_AHEAD segments.
        """
        together = self.engine.status().most_together
        ahead = together + min(together, MAX_SEGMENTS_AHEAD)
        in_flight: deque[FailedRequest | _FileJob] = deque()
        for request in requests:
            job = self._submit(request)
            if isinstance(job, _FileJob):
                on_audio(job.prepared.audio.seconds)
            in_flight.append(job)
            while len(in_flight) > 1 and sum(each.size for each in in_flight if isinstance(each, _FileJob)) > ahead:
                yield self._finish(in_flight.popleft(), on_segment)
        while in_flight:
            yield self._finish(in_flight.popleft(), on_segment)

    def prepare(self, request: Request) -> Prepared:
        """Build the prompt, decode the audio and split it. Raises KitError where one of them cannot be used."""
        language = self.prompt_builder.language(request.language)
        prompt = self.prompt_builder.build(context=request.context, language=language)
        sound = self._read(request.source)
        cuts = tuple(segments.split(sound.samples, longest=self.settings.segment_seconds))
        most = min(self.settings.max_new_tokens, request.max_tokens or self.settings.max_new_tokens)
        utterances = tuple(
            None if segments.is_silent(cut.samples) else Utterance(cut.samples, prompt, most) for cut in cuts
        )
        return Prepared(request, language, self.tokenizer, sound, cuts, utterances)

    def _submit(self, request: Request) -> "_FileJob | FailedRequest":
        """Prepare a request and submit its utterances to the engine."""
        try:
            prepared = self.prepare(request)
        except KitError as error:
            return FailedRequest(request, error)
        try:
            decodings = iter(self.engine.submit(prepared.spoken))
        except EngineError as error:
            return _failure(prepared, error)
        return _FileJob(prepared, [next(decodings) if utterance else None for utterance in prepared.utterances])

    def _read(self, source: Source) -> Audio:
        if isinstance(source, Audio):
            return source
        if isinstance(source, str | Path | bytes):
            return audio.load(source, limits=limits(self.settings))
        return source.load(limits=limits(self.settings))

    def _finish(
        self, job: "_FileJob | FailedRequest", on_segment: Callable[[float], None]
    ) -> Transcript | FailedRequest:
        """Wait for the segments of a file, and build its transcript."""
        if isinstance(job, FailedRequest):
            return job
        prepared = job.prepared
        done: list[transcript.Segment] = []
        try:
            for cut, decoding in zip(prepared.cuts, job.decodings, strict=True):
                done.append(prepared.to_segment(cut, decoding.result() if decoding else None))
                on_segment(cut.end - cut.start)
        except Exception as error:  # noqa: BLE001 - whatever the engine fails with, it belongs to this file
            for decoding in job.decodings:
                if decoding is not None:
                    decoding.cancel()
            return _failure(prepared, error)
        return prepared.to_transcript(done)


@dataclass(frozen=True)
class _FileJob:
    """A file whose utterances were submitted; `decodings` has one for each cut, None for a silent one."""

    prepared: Prepared
    decodings: list[Decoding | None]

    @property
    def size(self) -> int:
        return len(self.decodings)


def _failure(prepared: Prepared, error: Exception) -> FailedRequest:
    """The failure of a request by an error of the engine."""
    reason = str(error) if isinstance(error, KitError) else f"{type(error).__name__}: {error}"
    failure = KitError(prepared.audio.source, reason)
    failure.__cause__ = error
    return FailedRequest(prepared.request, failure)


def limits(settings: Settings) -> Limits:
    """The limits of accepted audio in the settings."""
    return Limits(
        longest_seconds=settings.max_audio_seconds,
        url_seconds=settings.url_timeout_seconds,
        url_bytes=settings.url_max_mib * 2**20,
        allow_private_urls=settings.allow_private_urls,
    )


def context_limit(settings: Settings, tokenizer: Tokenizer) -> int:
    """Most tokens of a context: the limit that the model's authors name, or what its positions, or vLLM's, leave beside
    the longest segment and its answer."""
    positions = tokenizer.positions
    if settings.engine_name == "vllm":
        positions = min(positions, settings.vllm_max_model_len)
    rest = positions - segment_tokens(settings.segment_seconds, settings.max_new_tokens)
    return max(0, min(MAX_CONTEXT_TOKENS, rest + HOTWORD_TOKENS))


def model_directory(settings: Settings) -> Path:
    """The checkpoint's directory by ASR_MODEL: of the demo model, or relative to the project."""
    return demo.CHECKPOINT if settings.model == DEMO else under_project(settings.model)


@contextmanager
def open_transcriber(settings: Settings, *, observers: Sequence[Observer] = ()) -> Iterator[Transcriber]:
    """Start the engine of the settings; at the end it is drained and stopped. `observers` get its events.

    Raises KitError where the demo model would silently take a real one's place, the device cannot be used, the
    checkpoint is not whole, or the engine does not start.
    """
    npu_host.check_demo(settings)
    sandbox.warm_up()
    engine = factory.create_engine(settings, model_directory(settings), observers)
    try:
        engine.start()
        yield Transcriber(settings, engine)
    except BaseException:
        engine.stop(drain=False)
        raise
    engine.stop()


class StageObserver(Observer):
    """Calls `on_stage` with each stage of an engine's start."""

    def __init__(self, on_stage: Callable[[str], None]) -> None:
        self._on_stage = on_stage

    def starting(self, stage: str) -> None:
        self._on_stage(stage)


@contextmanager
def transcriber_with_progress(settings: Settings) -> Iterator[Transcriber]:
    """`open_transcriber`, with a status line on standard error until the transcriber is ready."""
    with (
        status_line(f"Loading {settings.model}") as line,
        open_transcriber(settings, observers=[StageObserver(line.show)]) as transcriber,
    ):
        line.finish()
        yield transcriber
