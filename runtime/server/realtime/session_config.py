"""The configuration of a realtime session: OpenAI's fields, and those of the beta API, Alibaba's and vLLM's clients
that mean the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from env.errors import KitError
from runtime.model.prompt import is_unicode
from runtime.server.errors import ApiError, describe, invalid, shorten, to_api_error
from runtime.server.realtime import turn
from runtime.server.realtime.turn_detection import Detection
from runtime.server.routes.info import check_model
from runtime.transcriber import Transcriber

_TRANSCRIPTION = "session.audio.input.transcription"
_LANGUAGES = f"{_TRANSCRIPTION}.languages"
REALTIME_ERROR_FIELDS = {
    "audio": "audio",
    "language": f"{_TRANSCRIPTION}.language",
    "prompt": f"{_TRANSCRIPTION}.prompt",
}


class _JsonObject(BaseModel):
    """A JSON object. Fields that can only be None or False have no effect; they are there so that clients see them in
    the session."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class AudioFormat(_JsonObject):
    """Mono audio at `rate` Hz: 16-bit little-endian PCM, or G.711 with one byte per sample."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: Literal[8000, 16000, 24000] = 24000

    @property
    def sample_bytes(self) -> int:
        return 1 if self.type in turn.G711_TYPES else 2

    def pcm(self, data: bytes) -> bytes:
        return turn.decode_g711(data, self.type) if self.type in turn.G711_TYPES else data


class Corpus(_JsonObject):
    """The context, as Alibaba's clients send it."""

    text: str | None = None


class Transcription(_JsonObject):
    """Model name, forced language, and context: prompt, corpus and keywords.

    Of a list, only the first error is reported: to collect thousands takes a third of a second.
    """

    model: str | None = None
    language: str | None = None
    languages: list[str] | None = Field(default=None, fail_fast=True)
    prompt: str | None = None
    keywords: list[str] | None = Field(default=None, fail_fast=True)
    corpus: Corpus = Corpus()

    @property
    def forced(self) -> str | None:
        """The forced language; None with several, as only one can be forced."""
        return self.language or (self.languages[0] if self.languages and len(self.languages) == 1 else None)

    @property
    def context(self) -> str:
        """Everything that tells the model what to expect."""
        return "\n".join(filter(None, (self.prompt, self.corpus.text, ", ".join(self.keywords or ()))))


class ServerVad(_JsonObject):
    """Voice activity detection; `threshold` is a probability. Fields about responses of a model must stay off."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=32, le=10_000)
    create_response: Literal[False] = False
    interrupt_response: Literal[False] = False
    idle_timeout_ms: None = None


class Input(_JsonObject):
    """The audio input, and what is done with it."""

    format: AudioFormat = AudioFormat()
    transcription: Transcription = Transcription()
    turn_detection: ServerVad | None = ServerVad()
    noise_reduction: None = None


class AudioConfig(_JsonObject):
    """Only input: the server does not speak."""

    input: Input = Input()


class SessionConfig(_JsonObject):
    """The settings of a session; the defaults are OpenAI's."""

    type: Literal["transcription"] = "transcription"
    audio: AudioConfig = AudioConfig()
    include: None = None

    def updated(self, changes: Any) -> "Update":
        """Apply the changes of a `session.update`: missing fields stay as they are, null means the default. Also
        accepts the names that the beta API and Alibaba use at the top of the session.

        Raises ApiError, 400, naming the first field that asks for another result, and what is possible.
        """
        warnings: list[str] = []
        if isinstance(changes, dict):
            nested = _to_current_names(changes)
            if isinstance(nested.get("audio"), dict) and isinstance(nested["audio"].get("input"), dict):
                substituted = _substitute(nested["audio"]["input"], self.audio.input, warnings)
                nested["audio"] = {**nested["audio"], "input": substituted}
            changes = _supported(nested, SessionConfig, "session", warnings)
        try:
            updated = SessionConfig.model_validate(_merge(self.model_dump(), changes))
        except ValidationError as error:
            raise _from_validation(error) from None
        audio_format = updated.audio.input.format
        if audio_format.type in turn.G711_TYPES and audio_format.rate != turn.G711_RATE:
            reason = f"expected {turn.G711_RATE} for {audio_format.type}; it is {audio_format.rate}"
            raise invalid("session.audio.input.format.rate", reason)
        return Update(updated, tuple(warnings))

    def in_beta_names(self) -> dict[str, Any]:
        """The settings under the names of the beta API's `transcription_session` objects."""
        given, audio_format = self.audio.input.model_dump(), self.audio.input.format
        beta_format = next(name for name, kind in BETA_FORMATS.items() if kind == audio_format.type)
        fields = {beta_name: given[name] for beta_name, name in BETA_FIELDS.items()}
        return {**fields, "input_audio_format": beta_format, RATE_FIELDS[0]: audio_format.rate}


@dataclass(frozen=True)
class Update:
    """New settings, and warnings about fields without effect."""

    config: SessionConfig
    warnings: tuple[str, ...]


NESTED_MODELS: Mapping[str, type[_JsonObject]] = {
    "session": SessionConfig,
    "audio": AudioConfig,
    "input": Input,
    "format": AudioFormat,
    "transcription": Transcription,
    "corpus": Corpus,
    "turn_detection": ServerVad,
}
# The beta API's name at the top of a session → the name in `audio.input`.
BETA_FIELDS = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
BETA_FORMATS = {"pcm16": "audio/pcm", "pcm": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
# Hz, where none is named: 24 kHz at OpenAI; for `pcm`, which is Alibaba's name, 16 kHz (Model Studio, "Client events
# for Qwen-ASR-Realtime").
BETA_RATES = {"pcm16": AudioFormat().rate, "pcm": 16000, "g711_ulaw": turn.G711_RATE, "g711_alaw": turn.G711_RATE}
# The sampling rate at the top of a session, as Alibaba's clients send it.
RATE_FIELDS = ("sample_rate", "input_sample_rate")
POSSIBLE_RATES = get_args(AudioFormat.model_fields["rate"].annotation)
# What an update of vLLM's clients stands for, which brings no session (vllm/entrypoints/openai/realtime): its server
# takes 16-bit PCM at 16 kHz and detects no turns.
VLLM_CONFIG: Mapping[str, Any] = {
    "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}, "turn_detection": None}}
}
# Takes the place of a threshold of 0 or below, at which a turn would never end: Alibaba's go from -1 to 1, and 0 is its
# preset for low latency. Silero's network gives the noise of a room up to 0.09.
MIN_THRESHOLD = 0.1
# What a client finds in `session.created` and may send back.
ECHOED_FIELDS = ("id", "object", "expires_at", "client_secret")
# Fields beside the honoured ones that ask for another result than a transcript of what is said, and what to do instead.
UNSUPPORTED_FIELDS: Mapping[str, str] = {
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
MODELS_WITHOUT_VAD = ("gpt-realtime-whisper", "gpt-live-transcribe")


def _to_current_names(session: Mapping[str, Any]) -> dict[str, Any]:
    """Move the fields of the beta API and Alibaba from the top of a session to their current places. Raises ApiError
    for a field in both places, and for an unknown format or sampling rate."""
    names = {path: name for name, path in BETA_FIELDS.items() if name in session}
    top = {path: session[name] for path, name in names.items()}
    rest = {name: value for name, value in session.items() if name not in (*BETA_FIELDS, *RATE_FIELDS)}
    if top.get("format") is not None:
        top["format"] = _beta_format(top["format"])
    for name in RATE_FIELDS:
        if session.get(name) is not None:
            names["format"] = names.get("format", name)
            top["format"] = {**(top.get("format") or {}), "rate": _check_rate(name, session[name])}
    audio = _none_as_empty(rest.get("audio"))
    given = _none_as_empty(audio.get("input")) if isinstance(audio, dict) else audio
    if not top or not isinstance(given, dict):
        return rest  # what is no object is refused later
    for path, name in names.items():
        if path in given:
            raise invalid(f"session.{name}", f"is given in session.audio.input.{path} too; send one of the two")
    return {**rest, "audio": {**audio, "input": {**given, **top}}}


def _none_as_empty(value: Any) -> Any:
    return {} if value is None else value


def _check_rate(name: str, rate: Any) -> int:
    if not isinstance(rate, int) or rate not in POSSIBLE_RATES:
        message = f"{describe(rate)} is not possible; possible are {', '.join(map(str, POSSIBLE_RATES))}"
        raise invalid(f"session.{name}", message)
    return rate


def _beta_format(name: Any) -> dict[str, Any]:
    if not isinstance(name, str) or name not in BETA_FORMATS:
        message = f"{describe(name)} is not possible; possible are {', '.join(BETA_FORMATS)}"
        raise invalid("session.input_audio_format", message)
    return {"type": BETA_FORMATS[name], "rate": BETA_RATES[name]}


def _substitute(given: Mapping[str, Any], current: Input, warnings: list[str]) -> dict[str, Any]:
    """Replace what other clients send by what the server supports: names of the format, server_vad for another turn
    detection, and fields that follow from others."""
    found = dict(given)
    audio_format, vad, transcription = (found.get(name) for name in ("format", "turn_detection", "transcription"))
    if isinstance(audio_format, dict):
        found["format"] = _normalize_format(audio_format, current.format)
    if isinstance(vad, dict):
        found["turn_detection"] = _normalize_detection(vad, warnings)
    if isinstance(transcription, dict):
        for one, other in (("language", "languages"), ("languages", "language")):
            if transcription.get(one) and other not in transcription:
                found["transcription"] = {**transcription, other: None}  # what is said last counts
        undetected = str(transcription.get("model")).startswith(MODELS_WITHOUT_VAD)
        if undetected and "turn_detection" not in found and current.turn_detection == ServerVad():
            found["turn_detection"] = None
    return found


def _normalize_format(given: Mapping[str, Any], current: AudioFormat) -> dict[str, Any]:
    """A format with its rate. `pcm` and `sample_rate` are the names in Alibaba's SDK (dashscope, AudioFormatConfig)."""
    found = {name: value for name, value in given.items() if name != "sample_rate"}
    if given.get("sample_rate") is not None:
        found.setdefault("rate", given["sample_rate"])
    kind = found.get("type")
    if isinstance(kind, str) and kind in BETA_FORMATS:
        found = {"rate": BETA_RATES[kind], **found, "type": BETA_FORMATS[kind]}
    elif kind not in (None, current.type):
        found["rate"] = found.get("rate") or (turn.G711_RATE if kind in turn.G711_TYPES else AudioFormat().rate)
    return found


def _normalize_detection(given: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Turn detection by server_vad. Raises ApiError for an unknown eagerness."""
    path, found = "session.audio.input.turn_detection", dict(given)
    if found.get("type") == "semantic_vad":
        eagerness = found.pop("eagerness", None) or "auto"
        if eagerness not in list(EAGERNESS):
            possible = ", ".join(EAGERNESS)
            raise invalid(f"{path}.eagerness", f"{describe(eagerness)} is not possible; possible are {possible}")
        silence = EAGERNESS[eagerness]
        found = {**ServerVad(silence_duration_ms=silence).model_dump(), **found, "type": "server_vad"}
        instead = f"server_vad with silence_duration_ms {silence} takes its place"
        warnings.append(f"{path}: semantic_vad is not to be had, {instead}")
    threshold = found.get("threshold")
    if isinstance(threshold, int | float) and not isinstance(threshold, bool) and -1 <= threshold <= 0:
        found["threshold"] = MIN_THRESHOLD
        message = f"{threshold} would take every sound for speech; {MIN_THRESHOLD} takes its place"
        warnings.append(f"{path}.threshold: {message}")
    return found


def _supported(changes: Mapping[str, Any], part: type[_JsonObject], path: str, warnings: list[str]) -> dict[str, Any]:
    """Return the supported fields; add warnings about the others, unless they ask for nothing. Raises ApiError for one
    that asks for another result."""
    found: dict[str, Any] = {}
    for name, value in changes.items():
        field, field_path = part.model_fields.get(name), f"{path}.{shorten(name)}"
        if field is None or field.annotation in (type(None), Literal[False]):
            _drop_or_refuse(name, value, field_path, warnings)
        elif name in NESTED_MODELS and isinstance(value, dict):
            found[name] = _supported(value, NESTED_MODELS[name], field_path, warnings)
        elif value is None and name != "turn_detection":  # which null turns off
            found[name] = part().model_dump()[name]
        else:
            found[name] = value
    languages = found.get("languages")
    if isinstance(languages, list) and len(languages) > 1:
        warnings.append(f"{path}.languages: has no effect, as one language can be forced, not several")
    return found


def _drop_or_refuse(name: str, value: Any, path: str, warnings: list[str]) -> None:
    if name in ECHOED_FIELDS or not value:
        return
    if name in UNSUPPORTED_FIELDS and (name, value) != ("task", "transcribe"):
        raise invalid(path, UNSUPPORTED_FIELDS[name])
    if name in MODALITIES:
        if value != ["text"]:
            raise invalid(path, "the server does not speak; send ['text'] or leave it out")
        return
    warnings.append(f"{path}: has no effect")


def _merge(before: Any, changes: Any) -> Any:
    """Merge `changes` into `before`, object by object."""
    if not isinstance(changes, dict) or not isinstance(before, dict):
        return changes
    return {**before, **{name: _merge(before.get(name), value) for name, value in changes.items()}}


def _from_validation(error: ValidationError) -> Exception:
    first = error.errors(include_url=False)[0]
    path = ".".join(["session", *(str(name) for name in first["loc"])])
    message = first["msg"].replace("Input should be", "expected").replace("or instance of ", "or a ")
    return invalid(path, f"{message}; it is {describe(first['input'])}")


@dataclass(frozen=True)
class ResolvedConfig:
    """The settings as the client sees them, and what follows from them: the forced language, the prompt of each
    utterance, and the turn detection."""

    config: SessionConfig
    language: str | None
    prompt: str
    detection: Detection | None
    warnings: tuple[str, ...]  # of what cannot be had as it was called

    @property
    def format(self) -> AudioFormat:
        return self.config.audio.input.format

    def has_same_audio(self, other: "ResolvedConfig") -> bool:
        """Whether audio is processed in the same way."""
        return (self.format, self.detection) == (other.format, other.detection)


def resolve(config: SessionConfig, transcriber: Transcriber) -> ResolvedConfig:
    """Resolve a configuration. Raises ApiError, 400, for an unknown model or language, and for an unusable prompt."""
    given = config.audio.input
    try:
        warnings = check_model(given.transcription.model, transcriber.settings)
    except ApiError as error:
        message = error.message.removeprefix("model: ")
        raise invalid(f"{_TRANSCRIPTION}.model", message, code=error.code or "") from None
    prompt_builder, vad = transcriber.prompt_builder, given.turn_detection
    context = given.transcription.context
    if not is_unicode(context):  # JSON can hold what is not
        reason = "holds half a character (a lone surrogate), expected Unicode text"
        raise invalid(REALTIME_ERROR_FIELDS["prompt"], reason)
    for name in given.transcription.languages or ():
        try:
            prompt_builder.language(name)
        except KitError as error:
            raise to_api_error(error, {**REALTIME_ERROR_FIELDS, "language": _LANGUAGES}) from error
    try:
        language = prompt_builder.language(given.transcription.forced)
        prompt = prompt_builder.build(context=context, language=language)
    except KitError as error:
        raise to_api_error(error, REALTIME_ERROR_FIELDS) from error
    detection = None
    if vad:
        detection = Detection(vad.threshold, vad.prefix_padding_ms / 1000, vad.silence_duration_ms / 1000)
    return ResolvedConfig(config, language, prompt, detection, warnings)
