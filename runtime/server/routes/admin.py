"""Admin calls to a running server: device cache, log level, drain. AdmissionMiddleware checks who may make them.

They are left out of the OpenAPI document, which is for callers, whose clients are generated from it.
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
from runtime.server.state import ServerState, state_of

MAX_BODY_BYTES = 4096

router = APIRouter(prefix="/admin", include_in_schema=False)


@router.get("/status")
def status(request: Request) -> dict[str, Any]:
    """How the server is, whether or not it is ready; engine, device and queue are null while there is no model."""
    server_state = state_of(request)
    loaded = server_state.loaded
    return {
        **_status_object(server_state),
        "uptime_seconds": round(time.monotonic() - server_state.started_at, 1),
        "accepted": server_state.accepted,
        "engine_restarts": server_state.restarts,
        "engine": engine(loaded) if loaded else None,
        "device": device(loaded) if loaded else None,
        "queue": queue(loaded) if loaded else None,
    }


@router.get("/cache")
def cache(request: Request) -> dict[str, Any]:
    """What emptying the device's cache would give back."""
    return _empty_cache(request, dry_run=True)


@router.post("/cache")
def clear_cache(request: Request) -> dict[str, Any]:
    """Give memory back that this process holds on the device without using it."""
    return _empty_cache(request, dry_run=False)


@router.post("/drain")
async def drain(request: Request) -> dict[str, Any]:
    """Refuse new requests, go on with those that were accepted, and be not ready: the server stays until it is told to
    resume, or to stop."""
    server_state = state_of(request)
    server_state.drain()
    return _status_object(server_state)


@router.post("/resume")
async def resume(request: Request) -> dict[str, Any]:
    """Accept requests again. 409 where the server ends."""
    server_state = state_of(request)
    if not server_state.resume():
        raise ApiError(409, f"the server ends: {server_state.status_text}", code="stopping")
    return _status_object(server_state)


@router.put("/log-level")
async def log_level(request: Request) -> dict[str, Any]:
    """Change what is logged until the server ends: {"level": "debug"}, or another level of ASR_LOG_LEVEL."""
    body = await _read_json(request)
    if not isinstance(body, dict) or list(body) != ["level"]:
        raise invalid("level", 'expected {"level": …}, nothing else', code="missing_field")
    try:
        logs.set_level(str(body["level"]))
    except UsageError as error:
        raise invalid("level", f"{error.reason}, {error.advice}") from None
    return body


async def _read_json(request: Request) -> Any:
    """Parse the body. Raises ApiError: 413 if it is too large, 400 if it is no JSON."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            message = f"the body is larger than {MAX_BODY_BYTES} bytes, the limit of admin calls"
            raise ApiError(413, message, code="too_large", close=True)
    try:
        return uploads.parse_strict_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_body") from None


def _status_object(server_state: ServerState) -> dict[str, Any]:
    return {"status": server_state.status, "stage": server_state.status_text}


def _empty_cache(request: Request, *, dry_run: bool) -> dict[str, Any]:
    """Raises ApiError: 503 while there is no model, 409 if other processes hold it."""
    transcriber = state_of(request).service.transcriber
    if transcriber.engine.loaded is None:
        message = f"the engine {transcriber.engine.name} has the model in processes of its own, which keep their memory"
        raise ApiError(409, f"{message} until they end", code="not_here")
    return asdict(empty(transcriber.device, dry_run=dry_run))
