"""GET /v1/models: the one model that is loaded, and its names."""

from typing import Any

from fastapi import APIRouter, Request

from env.settings import DEMO, Settings
from runtime.server.errors import ApiError
from runtime.server.life import life_of
from runtime.transcriber import model_directory

router = APIRouter(prefix="/v1/models", tags=["model"])


def names(settings: Settings) -> tuple[str, ...]:
    """What requests may call the model: its directory's name, and its name on the hub if that ends likewise."""
    if settings.model == DEMO:
        return (DEMO,)
    name = model_directory(settings).name
    return (name, settings.hub_repo) if settings.hub_repo.rpartition("/")[2] == name else (name,)


def check_model(wanted: str | None, settings: Settings) -> None:
    """Raises ApiError, 404, for a name that is none of the model's. A request need not name it."""
    if wanted is not None and wanted not in names(settings):
        words = f"model: {wanted!r} is not served here; served is {' or '.join(names(settings))}"
        raise ApiError(404, words, param="model", code="model_not_found")


@router.get("")
async def models(request: Request) -> dict[str, Any]:
    """The model that is loaded."""
    return {"object": "list", "data": [_described(life_of(request).service.settings)]}


@router.get("/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """The model, by one of its names."""
    settings = life_of(request).service.settings
    check_model(name, settings)
    return _described(settings)


def _described(settings: Settings) -> dict[str, Any]:
    return {"id": names(settings)[0], "object": "model", "created": 0, "owned_by": "qwen3-asr-kit"}
