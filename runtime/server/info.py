"""GET /v1/info: what serves, on what, within which limits, and how busy it is."""

import importlib.metadata
import platform
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from runtime.model.device import Device, DeviceError, Memory
from runtime.server.life import life_of
from runtime.server.models import names
from runtime.server.service import Service
from runtime.weights.catalog import revision

router = APIRouter(prefix="/v1", tags=["model"])

PACKAGES = ("torch", "torch-npu", "transformers", "qwen-asr", "vllm", "vllm-ascend", "fastapi", "uvicorn")


@router.get("/info")
def info(request: Request) -> dict[str, Any]:
    """Versions, engine, device, model, limits, queue."""
    life = life_of(request)
    service, settings = life.service, life.service.settings
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "engine": engine(service),
        "device": device(service),
        "model": {
            "names": names(settings),
            "revision": revision(settings) or None,
            "dtype": settings.dtype,
            "languages": service.transcriber.wording.languages,
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
    """What the model runs on, and its memory in bytes; null where that cannot be told."""
    found = service.transcriber.device
    known = memory(found)
    return {
        "name": found.name,
        "silicon": found.silicon,
        "description": found.description(),
        "memory": asdict(known) if known else None,
    }


def memory(device: Device) -> Memory | None:
    """A device's memory, None where it cannot be told."""
    try:
        return device.memory()
    except DeviceError:
        return None


def engine(service: Service) -> dict[str, Any]:
    """What decodes, and the servers that do it for an engine whose model is not in this process."""
    found = service.transcriber.engine
    return {"name": found.name, "servers": [asdict(server) for server in found.status().servers]}


def queue(service: Service) -> dict[str, Any]:
    """Requests that are held, and the engine's utterances."""
    status = asdict(service.transcriber.engine.status())
    del status["servers"]  # see `engine`
    return {"requests": service.held, "engine": status}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
