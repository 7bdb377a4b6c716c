"""WS /v1/realtime, with the transcription events of OpenAI's Realtime API."""

import asyncio
import contextlib
from collections.abc import Mapping

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState
from websockets.frames import CloseCode

from env.errors import KitError
from env.settings import Settings
from runtime.server.errors import ApiError, RevokedError, StoppingError, invalid, shorten, to_api_error
from runtime.server.realtime.events import EventSender
from runtime.server.realtime.session import Session
from runtime.server.realtime.session_config import REALTIME_ERROR_FIELDS
from runtime.server.request_context import record_failure
from runtime.server.routes.health import metrics_of
from runtime.server.routes.info import check_model
from runtime.server.state import state_of

router = APIRouter(prefix="/v1", tags=["transcription"])

KNOWN_PARAMETERS = ("intent", "model")
INTENT = "transcription"
# Set by session.update, not in the address.
SESSION_FIELDS = ("language", "prompt", "keywords", "input_audio_format", "turn_detection")
REALTIME_SUBPROTOCOL = "realtime"  # which browsers offer, beside one that holds the key
HTTP_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # all; HEAD is answered as GET
CLOSE_CODES: Mapping[type[KitError], int] = {
    StoppingError: CloseCode.GOING_AWAY,
    RevokedError: CloseCode.POLICY_VIOLATION,
}
CLIENT_GONE = (WebSocketDisconnect, asyncio.TimeoutError)


@router.websocket("/realtime")
@router.websocket("/realtime/")
async def realtime(socket: WebSocket) -> None:
    """Transcribe speech while it is spoken."""
    server_state = state_of(socket)
    service = server_state.service
    warnings = check_query(socket.query_params, service.settings)
    sender = EventSender(socket, timeout=service.settings.request_timeout_seconds)
    try:
        with service.session(), metrics_of(socket).realtime_sessions.track_inprogress():
            await socket.accept(REALTIME_SUBPROTOCOL if REALTIME_SUBPROTOCOL in socket.scope["subprotocols"] else None)
            await Session(socket, sender, service=service, server_state=server_state, warnings=warnings).run()
            await sender.close(CloseCode.NORMAL_CLOSURE, "")
    except KitError as error:
        if socket.application_state is WebSocketState.CONNECTING:
            raise to_api_error(error, REALTIME_ERROR_FIELDS) from error
        failure = to_api_error(error, REALTIME_ERROR_FIELDS)
        record_failure(failure.status, failure.code)
        with contextlib.suppress(*CLIENT_GONE):
            await sender.error(failure)
            await sender.close(CLOSE_CODES.get(type(error), CloseCode.INTERNAL_ERROR), failure.message)
    except CLIENT_GONE:
        pass  # nobody is there any more, or reads


@router.api_route("/realtime", methods=HTTP_METHODS, include_in_schema=False)
@router.api_route("/realtime/", methods=HTTP_METHODS, include_in_schema=False)
async def not_upgraded(request: Request) -> None:
    """Answer a request without an upgrade: from a proxy that does not forward it, or from a page that asks why its
    WebSocket was refused, which its browser does not tell. Any other reason is given first."""
    try:
        state_of(request).service.check_session_capacity()
    except KitError as error:
        raise to_api_error(error, REALTIME_ERROR_FIELDS) from error
    message = (
        f"{request.url.path} is a WebSocket, and this request is none; behind a proxy, forward Upgrade and Connection"
    )
    refusal = ApiError(426, f"{message} (docker/nginx/README.md has the lines for nginx)", code="upgrade_required")
    refusal.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
    raise refusal


def check_query(query: Mapping[str, str], settings: Settings) -> list[str]:
    """Return warnings about the address's parameters that have no effect; none is required. Raises ApiError for one
    that asks for another result."""
    intent = query.get("intent", INTENT)
    if intent != INTENT:
        raise invalid("intent", f"{intent!r} is not possible; possible is {INTENT}")
    for name in SESSION_FIELDS:
        if name in query:
            raise invalid(name, "is set by session.update, in audio.input", code="unknown_field")
    ignored = [f"{shorten(name)}: has no effect" for name in query if name not in KNOWN_PARAMETERS]
    return [*check_model(query.get("model"), settings), *ignored]
