"""What went wrong, in the shape that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}, with the
request's id beside these."""

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
HUNG_UP = 499  # nginx's status for a client that is gone; nobody receives it

MAX_SHOWN_CHARS = 80

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer other than success: HTTP status, words for people, the field at fault and a code for programs."""

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
        """The body of the answer."""
        kind = "rate_limit_error" if self.status == 429 else "invalid_request_error"
        if self.status >= 500:
            kind = "server_error"
        told = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**told, "request_id": request_context.request_id()}}

    def response(self) -> Response:
        """The answer."""
        request_context.note_failure(self.status, self.code)
        return JSONResponse(self.body, self.status, self.headers)


class FullError(KitError):
    """As many requests wait as may."""


class SessionsFullError(KitError):
    """As many sessions are open as may."""


class OverdueError(KitError):
    """A request took longer than it may."""


class RevokedError(KitError):
    """The key that a session was opened with is none of the server's any more."""


class StoppingError(KitError):
    """The server ends before the request is done."""


class DecodingError(KitError):
    """The engine could not decode a segment."""


STATUS: Mapping[type[KitError], tuple[int, str]] = {
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


def from_kit(error: KitError, fields: Mapping[str, str]) -> ApiError:
    """The answer for a failed request. `fields` has the names that this route gives to audio, language and prompt."""
    for kind, (status, code) in STATUS.items():
        if isinstance(error, kind):
            if isinstance(
                error, DecodingError | StorageError | UnreadableError
            ):  # without its subject, a client's name for the audio
                log.error("%s: %s", type(error).__name__, error.reason, exc_info=error)
            request_context.note_failure(status, code)
            return ApiError(status, str(error), code=code)
    at_fault = "audio"
    if isinstance(error, UnknownLanguageError):
        at_fault = "language"
    elif isinstance(error, PromptError):
        at_fault = "prompt"
    request_context.note_failure(400, f"invalid_{at_fault}")
    return ApiError(400, str(error), param=fields[at_fault], code=f"invalid_{at_fault}")


def invalid(param: str, reason: str, *, code: str = "invalid_value") -> ApiError:
    """The answer to a field that cannot be honoured; `reason` says what is possible."""
    return ApiError(400, f"{param}: {reason}", param=param, code=code)


def shown(value: object) -> str:
    """A value that a client sent, however long or deep it is, in words about it."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return shortened(repr(value))


def shortened(text: str) -> str:
    """The beginning of a text that a client sent."""
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def add_handlers(app: FastAPI) -> None:
    """Have every failure answered in this module's shape."""
    app.add_exception_handler(ApiError, _api)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)


async def _api(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _http(request: Request, error: Exception) -> Response:
    """The framework's own: no such route, no such method."""
    assert isinstance(error, HTTPException)
    words, code = f"{HTTPStatus(error.status_code).phrase}: {error.detail}", None
    if error.status_code == HTTPStatus.NOT_FOUND:
        words, code = f"there is no {request.url.path}; {_instead(request)}", "unknown_url"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        words, code = f"{request.url.path} does not answer {request.method}; /docs lists what there is", "method"
    answer = ApiError(error.status_code, words, code=code)
    answer.headers.update(error.headers or {})
    return answer.response()


def _instead(request: Request) -> str:
    """What to ask instead of an address that there is not, most often for want of /v1 or for a slash too many."""
    parts = [part for part in request.url.path.split("/") if part not in ("", "v1")]
    wanted = "/v1/" + "/".join(parts)
    if wanted in request.app.openapi()["paths"]:
        return f"there is {wanted}: a client's base URL ends in /v1, without a slash behind it"
    return "/docs lists what there is"


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=HUNG_UP)


def bug(error: Exception) -> ApiError:
    """The answer where nobody foresaw that a request might fail; the traceback is in the log."""
    words = f"{type(error).__name__}: an error of the server, see its log for request {request_context.request_id()}"
    return ApiError(500, words, code="internal")
