"""Whose pages may use the server from a browser."""

from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from runtime.server.errors import ApiError

ANY = "*"
USUAL_PORTS = {"http": ":80", "https": ":443"}  # browsers leave them out
# What pages may read of an answer, beside what CORS lets them read anyway.
EXPOSED = (
    "Retry-After",
    "x-request-id",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
)


def read_origins(text: str | None) -> frozenset[str]:
    """The origins in ASR_CORS_ORIGINS, as browsers write them."""
    return frozenset(_as_sent(part.strip()) for part in text.split(",")) if text else frozenset()


def let_in(app: FastAPI, origins: frozenset[str]) -> None:
    """Have pages of these origins be answered. Keys are sent by scripts, so cookies are of no use here."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )


def check_origin(scope: Scope, origins: frozenset[str]) -> None:
    """Raises ApiError, 403, for a WebSocket from a page of another origin: browsers open those without asking, as they
    do not apply CORS to them. Programs name no origin."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if scope["type"] != "websocket" or origin is None or ANY in origins or origin in origins:
        return
    if urlsplit(origin).netloc != headers.get("host"):
        raise ApiError(403, f"pages of {origin} may not use this server (ASR_CORS_ORIGINS)", code="origin")


def _as_sent(origin: str) -> str:
    return origin.removesuffix(USUAL_PORTS.get(origin.partition(":")[0], ""))
