"""The health endpoints, which answer from the first moment on."""

import json

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime.server.life import life_of

ALLOW = {"Allow": "GET, HEAD, OPTIONS"}

router = APIRouter(prefix="/health", tags=["health"])


@router.options("/live", include_in_schema=False)  # HAProxy's `option httpchk` asks by OPTIONS unless told otherwise
@router.get("/live")
async def live(request: Request) -> Response:
    """200 as long as the process answers."""
    return _answer(request, 200)


@router.options("/ready", include_in_schema=False)
@router.get("/ready")
async def ready(request: Request) -> Response:
    """200 once a clip was transcribed and while requests are accepted, else 503 with how far it is."""
    return _answer(request, 200 if life_of(request).status == "ready" else 503)


def _answer(request: Request, code: int) -> Response:
    life = life_of(request)
    content = json.dumps({"status": life.status, "stage": life.stage})  # with spaces, for the eyes of operators
    return Response(content, code, ALLOW, media_type="application/json")
