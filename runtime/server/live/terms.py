"""What a session's settings mean for the server: checked against the model, in the terms of `runtime.live`."""

from dataclasses import dataclass

from env.errors import KitError
from runtime.live.listener import Detection
from runtime.model.prompt import is_unicode
from runtime.server.answering import refused
from runtime.server.errors import ApiError, from_kit
from runtime.server.live.config import Config, Format
from runtime.server.models import check_model
from runtime.transcriber import Transcriber

_TRANSCRIPTION = "session.audio.input.transcription"
_LANGUAGES = f"{_TRANSCRIPTION}.languages"
NAMES = {"audio": "audio", "language": f"{_TRANSCRIPTION}.language", "prompt": f"{_TRANSCRIPTION}.prompt"}


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
    def format(self) -> Format:
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
        raise refused(f"{_TRANSCRIPTION}.model", words, code=error.code or "") from None
    prompter, vad = transcriber.prompter, wanted.turn_detection
    context = wanted.transcription.context
    if not is_unicode(context):  # JSON can hold what is not
        raise refused(NAMES["prompt"], "holds half a character (a lone surrogate), expected Unicode text")
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
