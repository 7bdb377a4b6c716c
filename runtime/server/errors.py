"""Errors in the shape that OpenAI's clients read, {"error": {"message", "type", "param", "code"}}, with the request's
id added."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from env.errors import KitError
from runtime.audio import UnreadableError
from runtime.audio.download import StorageError
from runtime.engines import EngineError
from runtime.languages import UnknownLanguageError
from runtime.model.prompt import PromptError
from runtime.server import request_context

RETRY_AFTER = {"Retry-After": "5"}  # seconds
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that is gone; nobody receives it

MAX_SHOWN_CHARS = 80

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An error answer: HTTP status, a message for people, the field at fault and a code for programs."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, close: bool = False
    ) -> None:
        super().__init__(status, message, param)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers: dict[str, str] = dict(RETRY_AFTER) if status in (429, 503, 507) else {}
        if close:  # what the client still sends shall not be read
            self.headers["Connection"] = "close"

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        kind = "rate_limit_error" if self.status == 429 else "invalid_request_error"
        if self.status >= 500:
            kind = "server_error"
        fields = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**fields, "request_id": request_context.request_id()}}

    def response(self) -> Response:
        """Make the answer, and record the failure in the request's context."""
        request_context.record_failure(self.status, self.code)
        return JSONResponse(self.body, self.status, self.headers)


class FullError(KitError):
    """The queue is full (ASR_MAX_WAITING)."""


class SessionsFullError(KitError):
    """Too many realtime sessions are open (ASR_MAX_SESSIONS)."""


class OverdueError(KitError):
    """A request took longer than ASR_REQUEST_TIMEOUT_SECONDS."""


class RevokedError(KitError):
    """The key that a session was opened with is no longer valid."""


class StoppingError(KitError):
    """The server stops before the request is done."""


class DecodingError(KitError):
    """The engine could not decode one segment."""


KIT_ERRORS: Mapping[type[KitError], tuple[int, str]] = {
    FullError: (429, "queue_full"),
    SessionsFullError: (429, "sessions_full"),
    OverdueError: (504, "timeout"),
    RevokedError: (401, "invalid_api_key"),
    StoppingError: (503, "stopping"),
    EngineError: (503, "engine_failed"),
    UnreadableError: (503, "unreadable_now"),
    DecodingError: (500, "decoding_failed"),
    StorageError: (507, "storage"),
}


def to_api_error(error: KitError, fields: Mapping[str, str]) -> ApiError:
    """Map a failed request's error to an answer. `fields` maps audio, language and prompt to the names that this route
    gives them."""
    for kind, (status, code) in KIT_ERRORS.items():
        if isinstance(error, kind):
            if isinstance(error, DecodingError | StorageError | UnreadableError):
                # Without its subject, which is the client's name for the audio.
                log.error("%s: %s", type(error).__name__, error.reason, exc_info=error)
            request_context.record_failure(status, code)
            return ApiError(status, str(error), code=code)
    at_fault = "audio"
    if isinstance(error, UnknownLanguageError):
        at_fault = "language"
    elif isinstance(error, PromptError):
        at_fault = "prompt"
    request_context.record_failure(400, f"invalid_{at_fault}")
    return ApiError(400, str(error), param=fields[at_fault], code=f"invalid_{at_fault}")


def invalid(param: str, reason: str, *, code: str = "invalid_value") -> ApiError:
    """The 400 for a field that cannot be honoured; `reason` says what is possible."""
    return ApiError(400, f"{param}: {reason}", param=param, code=code)


def describe(value: object) -> str:
    """A client's value in a message, at most MAX_SHOWN_CHARS long."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return shorten(repr(value))


def shorten(text: str) -> str:
    """The first MAX_SHOWN_CHARS of a client's text."""
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def add_handlers(app: FastAPI) -> None:
    """Have every error answered in this module's shape."""
    app.add_exception_handler(ApiError, _handle_api_error)
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)


async def _handle_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _handle_http_error(request: Request, error: Exception) -> Response:
    """Answer the framework's own errors: no such route, no such method."""
    assert isinstance(error, HTTPException)
    message, code = f"{HTTPStatus(error.status_code).phrase}: {error.detail}", None
    if error.status_code == HTTPStatus.NOT_FOUND:
        message, code = f"there is no {request.url.path}; {_suggestion(request)}", "unknown_url"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message, code = f"{request.url.path} does not answer {request.method}; /docs lists what there is", "method"
    answer = ApiError(error.status_code, message, code=code)
    answer.headers.update(error.headers or {})
    return answer.response()


def _suggestion(request: Request) -> str:
    """Suggest a path that exists; most often /v1 is missing, or there is a slash too many."""
    parts = [part for part in request.url.path.split("/") if part not in ("", "v1")]
    suggested = "/v1/" + "/".join(parts)
    if suggested in request.app.openapi()["paths"]:
        return f"there is {suggested}: a client's base URL ends in /v1, without a slash behind it"
    return "/docs lists what there is"


async def _handle_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def internal_error(error: Exception) -> ApiError:
    """The 500 for an unexpected exception, whose traceback is in the log."""
    message = f"{type(error).__name__}: an error of the server, see its log for request {request_context.request_id()}"
    return ApiError(500, message, code="internal")
