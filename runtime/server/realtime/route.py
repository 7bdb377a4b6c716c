"""WS /v1/realtime, in the transcription events of OpenAI's Realtime API."""

import asyncio
import contextlib
from collections.abc import Mapping

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from env.errors import KitError
from env.settings import Settings
from runtime.server.errors import ApiError, RevokedError, StoppingError, from_kit, invalid, shortened
from runtime.server.realtime.events import Outgoing
from runtime.server.realtime.session import Session
from runtime.server.realtime.session_config import NAMES
from runtime.server.request_context import note_failure
from runtime.server.routes.health import metrics_of
from runtime.server.routes.info import check_model
from runtime.server.state import life_of

router = APIRouter(prefix="/v1", tags=["transcription"])

POSSIBLE = ("intent", "model")
INTENT = "transcription"
SETTINGS = ("language", "prompt", "keywords", "input_audio_format", "turn_detection")  # of sessions, not of addresses
SUBPROTOCOL = "realtime"  # which browsers offer, beside one that holds the key
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # all; HEAD is answered as GET
NORMAL, GOING_AWAY, NOT_ALLOWED, FAILED = 1000, 1001, 1008, 1011  # how the server closes (RFC 6455, 7.4.1)
CLOSED: Mapping[type[KitError], int] = {StoppingError: GOING_AWAY, RevokedError: NOT_ALLOWED}
GONE = (WebSocketDisconnect, asyncio.TimeoutError)


@router.websocket("/realtime")
@router.websocket("/realtime/")
async def realtime(socket: WebSocket) -> None:
    """Transcribe speech while it is spoken."""
    life = life_of(socket)
    service = life.service
    warnings = check_query(socket.query_params, service.settings)
    outgoing = Outgoing(socket, patience=service.settings.request_timeout_seconds)
    try:
        with service.session(), metrics_of(socket).realtime_sessions.track_inprogress():
            await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
            await Session(socket, outgoing, service=service, life=life, warnings=warnings).lead()
            await outgoing.close(NORMAL, "")
    except KitError as error:
        if socket.application_state is WebSocketState.CONNECTING:
            raise from_kit(error, NAMES) from error
        failure = from_kit(error, NAMES)
        note_failure(failure.status, failure.code)
        with contextlib.suppress(*GONE):
            await outgoing.error(failure)
            await outgoing.close(CLOSED.get(type(error), FAILED), failure.message)
    except GONE:
        pass  # nobody is there any more, or reads


@router.api_route("/realtime", methods=METHODS, include_in_schema=False)
@router.api_route("/realtime/", methods=METHODS, include_in_schema=False)
async def not_upgraded(request: Request) -> None:
    """What asks without an upgrade: a proxy that does not forward it, or a page whose WebSocket was refused and whose
    browser does not tell it why. Whatever else is wrong is told first."""
    try:
        life_of(request).service.refuse_session_if_full()
    except KitError as error:
        raise from_kit(error, NAMES) from error
    words = (
        f"{request.url.path} is a WebSocket, and this request is none; behind a proxy, forward Upgrade and Connection"
    )
    refusal = ApiError(426, f"{words} (docker/nginx/README.md has the lines for nginx)", code="upgrade_required")
    refusal.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
    raise refusal


def check_query(query: Mapping[str, str], settings: Settings) -> list[str]:
    """What the address asks for and has no effect, in words; it need not ask for anything. Raises ApiError for what
    would give another result."""
    intent = query.get("intent", INTENT)
    if intent != INTENT:
        raise invalid("intent", f"{intent!r} is not possible; possible is {INTENT}")
    for name in SETTINGS:
        if name in query:
            raise invalid(name, "is set by session.update, in audio.input", code="unknown_field")
    ignored = [f"{shortened(name)}: has no effect" for name in query if name not in POSSIBLE]
    return [*check_model(query.get("model"), settings), *ignored]
