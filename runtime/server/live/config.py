"""What a client may set of a transcription session, in the names of OpenAI's Realtime API."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.server.answering import refused
from runtime.server.live.messages import shown


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Format(_Part):
    """16-bit mono PCM, little-endian, at `rate` Hz."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[16000, 24000] = 24000


class Transcription(_Part):
    """The model's name, the language to be forced and the context."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None


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

    format: Format = Format()
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
    include: list[str] | None = Field(default=None, max_length=0)

    def updated(self, changes: Any) -> "Config":
        """With changes as `session.update` brings them: fields that it lacks stay as they are.

        Raises ApiError, 400, with the first field that cannot be honoured and what is possible.
        """
        try:
            return Config.model_validate(_merged(self.model_dump(), changes))
        except ValidationError as error:
            raise _refusal(error) from None


PARTS: Mapping[str, type[_Part]] = {
    "session": Config,
    "audio": AudioConfig,
    "input": Input,
    "format": Format,
    "transcription": Transcription,
    "turn_detection": ServerVad,
}


def _merged(before: Any, changes: Any) -> Any:
    """`changes` over `before`, object by object."""
    if not isinstance(changes, dict) or not isinstance(before, dict):
        return changes
    return {**before, **{name: _merged(before.get(name), value) for name, value in changes.items()}}


def _refusal(error: ValidationError) -> Exception:
    first = error.errors(include_url=False)[0]
    place = ["session", *(str(name) for name in first["loc"])]
    if first["type"] == "extra_forbidden":
        return refused(".".join(place), f"is not known here; possible are {_possible(place)}", code="unknown_field")
    words = first["msg"].replace("Input should be", "expected").replace("or instance of ", "or a ")
    return refused(".".join(place), f"{words}; it is {shown(first['input'])}")


def _possible(place: Sequence[str]) -> str:
    return ", ".join(PARTS[place[-2]].model_fields)
