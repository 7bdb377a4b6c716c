"""GET /v1/models and /v1/info: model, engine, device, limits and queue."""

import importlib.metadata
import platform
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from env.settings import DEMO, Settings
from runtime.model.device import Device, DeviceError, Memory
from runtime.server.errors import ApiError, describe, shorten
from runtime.server.service import Service
from runtime.server.state import state_of
from runtime.transcriber import model_directory
from runtime.weights.catalog import revision

models_router = APIRouter(prefix="/v1/models", tags=["model"])

MODEL_FAMILY = "qwen3-asr"  # as vllm-ascend's tutorial serves it
# OpenAI's transcription models (openai-python 3.57, types/audio_model.py and types/realtime/audio_transcription.py),
# which many clients send and cannot be told not to. Not gpt-4o-transcribe-diarize: speakers are not told apart here.
OPENAI_MODELS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
)
# Alibaba's service has this model under names that begin so, with dates and regions behind.
ALIBABA_PREFIX = "qwen3-asr-flash"

router = APIRouter(prefix="/v1", tags=["model"])

REPORTED_PACKAGES = ("torch", "torch-npu", "transformers", "qwen-asr", "vllm", "vllm-ascend", "fastapi", "uvicorn")


def names(settings: Settings) -> tuple[str, ...]:
    """The model's names: its directory, the hub's repository if it is called the same, its family, and
    ASR_MODEL_ALIASES."""
    own = DEMO if settings.model == DEMO else model_directory(settings).name
    hub = (settings.hub_repo,) if settings.hub_repo.rpartition("/")[2] == own else ()
    aliases = settings.model_aliases.split(",") if settings.model_aliases else ()
    return tuple(dict.fromkeys((own, *hub, MODEL_FAMILY, *aliases)))


def check_model(model: str | None, settings: Settings) -> tuple[str, ...]:
    """Return a warning if the model is called by a name of OpenAI's or Alibaba's; a request need not name it.

    Raises ApiError, 404, for an unknown name.
    """
    known = names(settings)
    if model is None or model in known:
        return ()
    if model in OPENAI_MODELS or model.startswith(ALIBABA_PREFIX):
        return (f"model: {known[0]} answers in place of {shorten(model)}",)
    others = ", ".join((*known[1:], *OPENAI_MODELS, ALIBABA_PREFIX))
    message = f"model: {describe(model)} is not served here; served is {known[0]}, also called {others}"
    raise ApiError(404, f"{message} (ASR_MODEL_ALIASES adds names)", param="model", code="model_not_found")


@models_router.get("")
async def models(request: Request) -> dict[str, Any]:
    """The model that is loaded."""
    return {"object": "list", "data": [_model_object(state_of(request).service.settings)]}


@models_router.get("/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """The model, by any name that it answers to."""
    settings = state_of(request).service.settings
    check_model(name or None, settings)
    return _model_object(settings)


def _model_object(settings: Settings) -> dict[str, Any]:
    own, *others = names(settings)
    aliases = [*others, *OPENAI_MODELS, ALIBABA_PREFIX]
    return {"id": own, "object": "model", "created": 0, "owned_by": "qwen3-asr-kit", "aliases": aliases}


@router.get("/info")
def info(request: Request) -> dict[str, Any]:
    """Versions, engine, device, model, limits, queue."""
    server_state = state_of(request)
    service, settings = server_state.service, server_state.service.settings
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "engine": engine(service),
        "device": device(service),
        "model": {
            "names": names(settings),
            "revision": revision(settings) or None,
            "dtype": settings.dtype,
            "languages": service.transcriber.tokenizer.languages,
        },
        "limits": {
            "audio_seconds": settings.max_audio_seconds,
            "segment_seconds": settings.segment_seconds,
            "tokens_per_segment": settings.max_new_tokens,
            "upload_bytes": settings.upload_max_mib << 20,
            "url_bytes": settings.url_max_mib << 20,
            "url_seconds": settings.url_timeout_seconds,
            "request_seconds": settings.request_timeout_seconds,
            "requests": settings.max_waiting,
            "sessions": settings.max_sessions,
        },
        "queue": queue(service),
    }


def device(service: Service) -> dict[str, Any]:
    """The device, and its memory in bytes; null if unknown."""
    found = service.transcriber.device
    known = memory(found)
    return {
        "name": found.name,
        "silicon": found.silicon,
        "description": found.description(),
        "memory": asdict(known) if known else None,
    }


def memory(device: Device) -> Memory | None:
    """The device's memory; None where its driver does not tell."""
    try:
        return device.memory()
    except DeviceError:
        return None


def engine(service: Service) -> dict[str, Any]:
    """The engine, and the vLLM servers behind it, if any."""
    found = service.transcriber.engine
    return {"name": found.name, "servers": [asdict(server) for server in found.status().servers]}


def queue(service: Service) -> dict[str, Any]:
    """Pending requests, sessions not included, and the engine's queue."""
    status = asdict(service.transcriber.engine.status())
    del status["servers"]  # see `engine`
    return {"requests": service.pending, "engine": status}


def _versions() -> dict[str, str]:
    found = {}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
