"""What operators may do to a running server: its cache, its log, its drain. Who they are the gate checks.

The OpenAPI document leaves this out: it is for callers, whose clients are made from it.
"""

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from env.errors import UsageError
from runtime.model.device import empty
from runtime.server import logs, uploads
from runtime.server.errors import ApiError, invalid
from runtime.server.routes.info import device, engine, queue
from runtime.server.state import ServerState, life_of

MOST_BODY = 4096  # bytes

router = APIRouter(prefix="/admin", include_in_schema=False)


@router.get("/status")
def status(request: Request) -> dict[str, Any]:
    """How the server is, whether or not it is ready; engine, device and queue are null while there is no model."""
    life = life_of(request)
    loaded = life.loaded
    return {
        **_told(life),
        "uptime_seconds": round(time.monotonic() - life.begun, 1),
        "accepted": life.accepted,
        "engine_restarts": life.restarts,
        "engine": engine(loaded) if loaded else None,
        "device": device(loaded) if loaded else None,
        "queue": queue(loaded) if loaded else None,
    }


@router.get("/cache")
def cache(request: Request) -> dict[str, Any]:
    """What emptying the device's cache would give back."""
    return _emptied(request, dry_run=True)


@router.post("/cache")
def clear_cache(request: Request) -> dict[str, Any]:
    """Give memory back that this process holds on the device without using it."""
    return _emptied(request, dry_run=False)


@router.post("/drain")
async def drain(request: Request) -> dict[str, Any]:
    """Refuse new requests, go on with those that were accepted, and be not ready: the server stays until it is told to
    resume, or to stop."""
    life = life_of(request)
    life.drain()
    return _told(life)


@router.post("/resume")
async def resume(request: Request) -> dict[str, Any]:
    """Accept requests again. 409 where the server ends."""
    life = life_of(request)
    if not life.resume():
        raise ApiError(409, f"the server ends: {life.stage}", code="stopping")
    return _told(life)


@router.put("/log-level")
async def log_level(request: Request) -> dict[str, Any]:
    """Change what is logged until the server ends: {"level": "debug"}, or another level of ASR_LOG_LEVEL."""
    wanted = await _json(request)
    if not isinstance(wanted, dict) or list(wanted) != ["level"]:
        raise invalid("level", 'expected {"level": …}, nothing else', code="missing_field")
    try:
        logs.set_level(str(wanted["level"]))
    except UsageError as error:
        raise invalid("level", f"{error.reason}, {error.advice}") from None
    return wanted


async def _json(request: Request) -> Any:
    """What the body holds. Raises ApiError, 413 for one that is too large, 400 for one that is no JSON."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY:
            words = f"the body is larger than {MOST_BODY} bytes, the limit of admin calls"
            raise ApiError(413, words, code="too_large", close=True)
    try:
        return uploads.parse_strict_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_body") from None


def _told(life: ServerState) -> dict[str, Any]:
    return {"status": life.status, "stage": life.stage}


def _emptied(request: Request, *, dry_run: bool) -> dict[str, Any]:
    """Raises ApiError: 503 where there is no model, 409 where another process has it."""
    transcriber = life_of(request).service.transcriber
    if transcriber.engine.loaded is None:
        words = f"the engine {transcriber.engine.name} has the model in processes of its own, which keep their memory"
        raise ApiError(409, f"{words} until they end", code="not_here")
    return asdict(empty(transcriber.device, dry_run=dry_run))
