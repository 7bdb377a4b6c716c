"""GET /v1/models: the one model that is loaded, and the names that it answers to."""

from typing import Any

from fastapi import APIRouter, Request

from env.settings import DEMO, Settings
from runtime.server.answering import shortened, shown
from runtime.server.errors import ApiError
from runtime.server.life import life_of
from runtime.transcriber import model_directory

router = APIRouter(prefix="/v1/models", tags=["model"])

FAMILY = "qwen3-asr"  # as vllm-ascend's tutorial serves it
# OpenAI's transcription models (openai-python 3.57, types/audio_model.py and types/realtime/audio_transcription.py),
# which many clients send and cannot be told not to. Not gpt-4o-transcribe-diarize: speakers are not told apart here.
OPENAI = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
)
# Alibaba's service has this model under names that begin so, with dates and regions behind.
ALIBABA = "qwen3-asr-flash"


def names(settings: Settings) -> tuple[str, ...]:
    """What the model is called: by its directory, on the hub if that ends likewise, by its family and by operators."""
    own = DEMO if settings.model == DEMO else model_directory(settings).name
    hub = (settings.hub_repo,) if settings.hub_repo.rpartition("/")[2] == own else ()
    aliases = settings.model_aliases.split(",") if settings.model_aliases else ()
    return tuple(dict.fromkeys((own, *hub, FAMILY, *aliases)))


def check_model(wanted: str | None, settings: Settings) -> tuple[str, ...]:
    """A warning where the model is called by a name of OpenAI's or Alibaba's; a request need not name it at all.

    Raises ApiError, 404, for a name that it does not answer to.
    """
    known = names(settings)
    if wanted is None or wanted in known:
        return ()
    if wanted in OPENAI or wanted.startswith(ALIBABA):
        return (f"model: {known[0]} answers in place of {shortened(wanted)}",)
    others = ", ".join((*known[1:], *OPENAI, ALIBABA))
    words = f"model: {shown(wanted)} is not served here; served is {known[0]}, also called {others}"
    raise ApiError(404, f"{words} (ASR_MODEL_ALIASES adds names)", param="model", code="model_not_found")


@router.get("")
async def models(request: Request) -> dict[str, Any]:
    """The model that is loaded."""
    return {"object": "list", "data": [_described(life_of(request).service.settings)]}


@router.get("/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """The model, by any name that it answers to."""
    settings = life_of(request).service.settings
    check_model(name or None, settings)
    return _described(settings)


def _described(settings: Settings) -> dict[str, Any]:
    own, *others = names(settings)
    aliases = [*others, *OPENAI, ALIBABA]
    return {"id": own, "object": "model", "created": 0, "owned_by": "qwen3-asr-kit", "aliases": aliases}
