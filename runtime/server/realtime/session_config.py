"""The Realtime API: sessions over a WebSocket."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from env.errors import KitError
from runtime.model.prompt import is_unicode
from runtime.server.errors import ApiError, from_kit, invalid, shortened, shown
from runtime.server.realtime import turn
from runtime.server.realtime.turn_detection import Detection
from runtime.server.routes.info import check_model
from runtime.transcriber import Transcriber

_TRANSCRIPTION = "session.audio.input.transcription"
_LANGUAGES = f"{_TRANSCRIPTION}.languages"
NAMES = {"audio": "audio", "language": f"{_TRANSCRIPTION}.language", "prompt": f"{_TRANSCRIPTION}.prompt"}


class _Part(BaseModel):
    """The fields of one JSON object. Those that can only be None or False are not honoured; they are there so that
    clients see them in the settings as they hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class AudioFormat(_Part):
    """Mono, `rate` Hz: 16-bit PCM, little-endian, or G.711, one byte a sample."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: Literal[8000, 16000, 24000] = 24000

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return 1 if self.type in turn.LAWS else 2

    def pcm(self, data: bytes) -> bytes:
        """16-bit PCM of whole samples."""
        return turn.decode(data, self.type) if self.type in turn.LAWS else data


class Corpus(_Part):
    """The context, as Alibaba's clients send it."""

    text: str | None = None


class Transcription(_Part):
    """The model's name, the language to be forced, and the context: a prompt, a corpus and keywords.

    Of a list, the first fault is told alone: to collect thousands takes a third of a second.
    """

    model: str | None = None
    language: str | None = None
    languages: list[str] | None = Field(default=None, fail_fast=True)
    prompt: str | None = None
    keywords: list[str] | None = Field(default=None, fail_fast=True)
    corpus: Corpus = Corpus()

    @property
    def forced(self) -> str | None:
        """The language to be forced; of several, none can be."""
        return self.language or (self.languages[0] if self.languages and len(self.languages) == 1 else None)

    @property
    def context(self) -> str:
        """All that tells the model what to expect."""
        return "\n".join(filter(None, (self.prompt, self.corpus.text, ", ".join(self.keywords or ()))))


class ServerVad(_Part):
    """When the server ends a turn: `threshold` is a probability. What only answers of a model need stays off."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=32, le=10_000)
    create_response: Literal[False] = False
    interrupt_response: Literal[False] = False
    idle_timeout_ms: None = None


class Input(_Part):
    """The sound that comes, and what is done with it."""

    format: AudioFormat = AudioFormat()
    transcription: Transcription = Transcription()
    turn_detection: ServerVad | None = ServerVad()
    noise_reduction: None = None


class AudioConfig(_Part):
    """Only input: the server does not speak."""

    input: Input = Input()


class Config(_Part):
    """The settings of one session; the defaults are OpenAI's."""

    type: Literal["transcription"] = "transcription"
    audio: AudioConfig = AudioConfig()
    include: None = None

    def updated(self, changes: Any) -> "Update":
        """With changes as `session.update` brings them: fields that it lacks stay as they are, null stands for the
        default. The names of the beta API and of Alibaba's, at the top of the session, are understood too.

        Raises ApiError, 400, with the first field that would give another result than asked, and what is possible.
        """
        warnings: list[str] = []
        if isinstance(changes, dict):
            nested = _nested(changes)
            if isinstance(nested.get("audio"), dict) and isinstance(nested["audio"].get("input"), dict):
                substituted = _substituted(nested["audio"]["input"], self.audio.input, warnings)
                nested["audio"] = {**nested["audio"], "input": substituted}
            changes = _honoured(nested, Config, "session", warnings)
        try:
            updated = Config.model_validate(_merged(self.model_dump(), changes))
        except ValidationError as error:
            raise _refusal(error) from None
        form = updated.audio.input.format
        if form.type in turn.LAWS and form.rate != turn.RATE:
            raise invalid("session.audio.input.format.rate", f"expected {turn.RATE} for {form.type}; it is {form.rate}")
        return Update(updated, tuple(warnings))

    def in_beta_names(self) -> dict[str, Any]:
        """The same as the beta API's `transcription_session` objects have it."""
        wanted = self.audio.input.model_dump()
        form = next(name for name, kind in BETA_FORMATS.items() if kind == self.audio.input.format.type)
        rate = self.audio.input.format.rate
        return {**{name: wanted[place] for name, place in BETA.items()}, "input_audio_format": form, RATES[0]: rate}


@dataclass(frozen=True)
class Update:
    """New settings, and what of the wish for them had no effect."""

    config: Config
    warnings: tuple[str, ...]


PARTS: Mapping[str, type[_Part]] = {
    "session": Config,
    "audio": AudioConfig,
    "input": Input,
    "format": AudioFormat,
    "transcription": Transcription,
    "corpus": Corpus,
    "turn_detection": ServerVad,
}
# The beta API's name at the top of a session → the name in `audio.input`.
BETA = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
BETA_FORMATS = {"pcm16": "audio/pcm", "pcm": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
# Hz, where none is named: 24 kHz at OpenAI; for `pcm`, which is Alibaba's name, 16 kHz (Model Studio, "Client events
# for Qwen-ASR-Realtime").
BETA_RATES = {"pcm16": AudioFormat().rate, "pcm": 16000, "g711_ulaw": turn.RATE, "g711_alaw": turn.RATE}
# The sampling rate at the top of a session, as Alibaba's clients send it.
RATES = ("sample_rate", "input_sample_rate")
POSSIBLE_RATES = get_args(AudioFormat.model_fields["rate"].annotation)
# What an update of vLLM's clients stands for, which brings no session (vllm/entrypoints/openai/realtime): its server
# takes 16-bit PCM at 16 kHz and detects no turns.
VLLM: Mapping[str, Any] = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}, "turn_detection": None}}}
# Takes the place of a threshold of 0 or below, at which a turn would never end: Alibaba's go from -1 to 1, and 0 is its
# preset for low latency. Silero's network gives the noise of a room up to 0.09.
LEAST_THRESHOLD = 0.1
# What a client finds in `session.created` and may send back.
ECHOED = ("id", "object", "expires_at", "client_secret")
# Fields beside the honoured ones that ask for another result than a transcript of what is said, and what to do instead.
REFUSED: Mapping[str, str] = {
    "instructions": "nothing is answered here; the context goes into audio.input.transcription.prompt",
    "prompt": "there are no templates here; the context goes into audio.input.transcription.prompt",
    "tools": "nothing is called here",
    "voice": "the server does not speak",
    "output": "the server does not speak",
    "translation": "speech is transcribed in its own language",
    "target_language": "speech is transcribed in its own language",
    "task": "speech is transcribed in its own language",
    "diarization": "speakers are not told apart",
    "diarize": "speakers are not told apart",
    "timestamp_granularities": "words have no times in a session",
}
MODALITIES = ("modalities", "output_modalities")
# Milliseconds of silence, in place of a model of meaning that waits 8, 4 or 2 s at most (OpenAI's documentation).
EAGERNESS = {"low": 1000, "medium": 500, "auto": 500, "high": 300}
# OpenAI's models without turn detection: their clients, such as LiveKit, name none and commit by themselves.
UNDETECTED = ("gpt-realtime-whisper", "gpt-live-transcribe")


def _nested(session: Mapping[str, Any]) -> dict[str, Any]:
    """The names at the top of a session, the beta API's and Alibaba's, in their places of today. Raises ApiError where
    a field is given in both places, or for an unknown format or sampling rate."""
    names = {place: name for name, place in BETA.items() if name in session}
    top = {place: session[name] for place, name in names.items()}
    rest = {name: value for name, value in session.items() if name not in (*BETA, *RATES)}
    if top.get("format") is not None:
        top["format"] = _beta_format(top["format"])
    for name in RATES:
        if session.get(name) is not None:
            names["format"] = names.get("format", name)
            top["format"] = {**(top.get("format") or {}), "rate": _rate(name, session[name])}
    audio = _or_empty(rest.get("audio"))
    given = _or_empty(audio.get("input")) if isinstance(audio, dict) else audio
    if not top or not isinstance(given, dict):
        return rest  # what is no object is refused later
    for place, name in names.items():
        if place in given:
            raise invalid(f"session.{name}", f"is given in session.audio.input.{place} too; send one of the two")
    return {**rest, "audio": {**audio, "input": {**given, **top}}}


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def _rate(name: str, rate: Any) -> int:
    if not isinstance(rate, int) or rate not in POSSIBLE_RATES:
        words = f"{shown(rate)} is not possible; possible are {', '.join(map(str, POSSIBLE_RATES))}"
        raise invalid(f"session.{name}", words)
    return rate


def _beta_format(name: Any) -> dict[str, Any]:
    """Raises ApiError for a format that is unknown."""
    if not isinstance(name, str) or name not in BETA_FORMATS:
        words = f"{shown(name)} is not possible; possible are {', '.join(BETA_FORMATS)}"
        raise invalid("session.input_audio_format", words)
    return {"type": BETA_FORMATS[name], "rate": BETA_RATES[name]}


def _substituted(wanted: Mapping[str, Any], now: Input, warnings: list[str]) -> dict[str, Any]:
    """The input's settings as the server can honour them: other clients' names of the format, server_vad in place of
    another detection of turns, and the fields that follow from others."""
    found = dict(wanted)
    form, vad, transcription = (found.get(name) for name in ("format", "turn_detection", "transcription"))
    if isinstance(form, dict):
        found["format"] = _format(form, now.format)
    if isinstance(vad, dict):
        found["turn_detection"] = _detection(vad, warnings)
    if isinstance(transcription, dict):
        for one, other in (("language", "languages"), ("languages", "language")):
            if transcription.get(one) and other not in transcription:
                found["transcription"] = {**transcription, other: None}  # what is said last counts
        undetected = str(transcription.get("model")).startswith(UNDETECTED)
        if undetected and "turn_detection" not in found and now.turn_detection == ServerVad():
            found["turn_detection"] = None
    return found


def _format(wanted: Mapping[str, Any], now: AudioFormat) -> dict[str, Any]:
    """A format with its rate; `pcm` and `sample_rate` are the names of Alibaba's SDK (dashscope, AudioFormatConfig)."""
    found = {name: value for name, value in wanted.items() if name != "sample_rate"}
    if wanted.get("sample_rate") is not None:
        found.setdefault("rate", wanted["sample_rate"])
    kind = found.get("type")
    if isinstance(kind, str) and kind in BETA_FORMATS:
        found = {"rate": BETA_RATES[kind], **found, "type": BETA_FORMATS[kind]}
    elif kind not in (None, now.type):
        found["rate"] = found.get("rate") or (turn.RATE if kind in turn.LAWS else AudioFormat().rate)
    return found


def _detection(wanted: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """The detection of turns, by the server's own means. Raises ApiError for an unknown eagerness."""
    here, found = "session.audio.input.turn_detection", dict(wanted)
    if found.get("type") == "semantic_vad":
        eagerness = found.pop("eagerness", None) or "auto"
        if eagerness not in list(EAGERNESS):
            possible = ", ".join(EAGERNESS)
            raise invalid(f"{here}.eagerness", f"{shown(eagerness)} is not possible; possible are {possible}")
        silence = EAGERNESS[eagerness]
        found = {**ServerVad(silence_duration_ms=silence).model_dump(), **found, "type": "server_vad"}
        instead = f"server_vad with silence_duration_ms {silence} takes its place"
        warnings.append(f"{here}: semantic_vad is not to be had, {instead}")
    threshold = found.get("threshold")
    if isinstance(threshold, int | float) and not isinstance(threshold, bool) and -1 <= threshold <= 0:
        found["threshold"] = LEAST_THRESHOLD
        words = f"{threshold} would take every sound for speech; {LEAST_THRESHOLD} takes its place"
        warnings.append(f"{here}.threshold: {words}")
    return found


def _honoured(changes: Mapping[str, Any], part: type[_Part], place: str, warnings: list[str]) -> dict[str, Any]:
    """The fields that are honoured; of the others a warning tells, unless they ask for nothing. Raises ApiError for one
    that asks for another result."""
    found: dict[str, Any] = {}
    for name, value in changes.items():
        field, here = part.model_fields.get(name), f"{place}.{shortened(name)}"
        if field is None or field.annotation in (type(None), Literal[False]):
            _leave_out(name, value, here, warnings)
        elif name in PARTS and isinstance(value, dict):
            found[name] = _honoured(value, PARTS[name], here, warnings)
        elif value is None and name != "turn_detection":  # which null turns off
            found[name] = part().model_dump()[name]
        else:
            found[name] = value
    languages = found.get("languages")
    if isinstance(languages, list) and len(languages) > 1:
        warnings.append(f"{place}.languages: has no effect, as one language can be forced, not several")
    return found


def _leave_out(name: str, value: Any, here: str, warnings: list[str]) -> None:
    if name in ECHOED or not value:
        return
    if name in REFUSED and (name, value) != ("task", "transcribe"):
        raise invalid(here, REFUSED[name])
    if name in MODALITIES:
        if value != ["text"]:
            raise invalid(here, "the server does not speak; send ['text'] or leave it out")
        return
    warnings.append(f"{here}: has no effect")


def _merged(before: Any, changes: Any) -> Any:
    """`changes` over `before`, object by object."""
    if not isinstance(changes, dict) or not isinstance(before, dict):
        return changes
    return {**before, **{name: _merged(before.get(name), value) for name, value in changes.items()}}


def _refusal(error: ValidationError) -> Exception:
    first = error.errors(include_url=False)[0]
    place = ".".join(["session", *(str(name) for name in first["loc"])])
    words = first["msg"].replace("Input should be", "expected").replace("or instance of ", "or a ")
    return invalid(place, f"{words}; it is {shown(first['input'])}")


@dataclass(frozen=True)
class Terms:
    """The settings as a client sees them, and what follows: the forced language, the prompt of each utterance, when
    turns begin and end."""

    config: Config
    language: str | None
    prompt: str
    detection: Detection | None
    warnings: tuple[str, ...]  # of what cannot be had as it was called

    @property
    def format(self) -> AudioFormat:
        """Of the sound that comes."""
        return self.config.audio.input.format

    def hears_like(self, other: "Terms") -> bool:
        """Whether sound is taken in the same way."""
        return (self.format, self.detection) == (other.format, other.detection)


def agree(config: Config, transcriber: Transcriber) -> Terms:
    """Raises ApiError, 400, for a model, a language, be it one of several, or a prompt that cannot be had."""
    wanted = config.audio.input
    try:
        warnings = check_model(wanted.transcription.model, transcriber.settings)
    except ApiError as error:
        words = error.message.removeprefix("model: ")
        raise invalid(f"{_TRANSCRIPTION}.model", words, code=error.code or "") from None
    prompter, vad = transcriber.prompter, wanted.turn_detection
    context = wanted.transcription.context
    if not is_unicode(context):  # JSON can hold what is not
        raise invalid(NAMES["prompt"], "holds half a character (a lone surrogate), expected Unicode text")
    for name in wanted.transcription.languages or ():
        try:
            prompter.language(name)
        except KitError as error:
            raise from_kit(error, {**NAMES, "language": _LANGUAGES}) from error
    try:
        language = prompter.language(wanted.transcription.forced)
        prompt = prompter.write(context=context, language=language)
    except KitError as error:
        raise from_kit(error, NAMES) from error
    detection = None
    if vad:
        detection = Detection(vad.threshold, vad.prefix_padding_ms / 1000, vad.silence_duration_ms / 1000)
    return Terms(config, language, prompt, detection, warnings)
