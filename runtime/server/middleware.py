"""What every request passes first: whether it may be asked here, and whether the server accepts anything."""

import asyncio
import logging
import re
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from time import monotonic

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.server.auth import SUBPROTOCOL, Access, KeyAttempts, check_operator
from runtime.server.errors import HUNG_UP, ApiError, bug
from runtime.server.metrics import Metrics
from runtime.server.origins import check_host, check_origin, opens_session
from runtime.server.rate_limit import Quotas
from runtime.server.request_context import RequestContext, current
from runtime.server.state import ServerState

CALLERS = "/v1/"
OPERATORS = "/admin/"
OPEN = ("/health/", "/metrics")  # to everybody, also where there are keys

HEADER = "x-request-id"
USABLE = re.compile(r"[A-Za-z0-9._:-]{1,128}")  # an id that clients may choose
OTHER = "other"  # what no route answers, so that paths that somebody made up do not become metrics
QUIET = ("/health/", "/metrics")  # asked every few seconds
HEADS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
ENDS = ("http.response.body", "websocket.http.response.body")
# The status that stands for how a session was closed, by RFC 6455's codes: 101 where it was as it should be.
CLOSED: Mapping[int, int] = {
    1000: 101,
    1001: 101,  # going away, unless the server says why
    1002: 400,  # protocol error
    1003: 400,  # unsupported data
    1005: 101,  # no code given
    1006: HUNG_UP,  # nobody said goodbye
    1007: 400,  # not what its type says
    1008: 403,  # policy
    1009: 413,  # too big
    1011: 500,  # internal error
    1012: 503,  # restart
    1013: 503,  # try again later
}
GOING_AWAY = 1001
REFUSED = 403  # what uvicorn answers where a session is closed before it was accepted

log = logging.getLogger(__name__)


class AdmissionMiddleware:
    """Refuses before anything of a body is read or a WebSocket is open; counts what it lets through to /v1 until it is
    answered or closed."""

    def __init__(self, app: ASGIApp, *, life: ServerState, access: Access) -> None:
        self._app, self._life, self._access = app, life, access
        self._quotas, self._guesses = Quotas(), KeyAttempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or lead one WebSocket's conversation."""
        path = scope.get("path", "")
        try:
            if path.startswith(OPERATORS):
                check_operator(scope, self._access.admin, self._guesses)
            elif not (self._access.keys.known or path.startswith(OPEN)):
                check_host(scope, self._access.hosts, self._access.own_names)
            if path.startswith(CALLERS):
                await self._call(scope, receive, send)
                return
            await self._app(scope, receive, send)
        except ApiError as refusal:  # of a WebSocket too: uvicorn answers what is not open yet as HTTP
            await refusal.response()(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_origin(scope, self._access.origins, keyed=bool(self._access.keys.known))
        key = self._access.key(scope, self._guesses)
        state = scope.setdefault("state", {})
        state["owner"] = key.owner if key else ""
        state["is_revoked"] = partial(self._access.is_revoked, key)
        if "subprotocols" in scope:  # the key is not for the routes
            scope["subprotocols"] = [name for name in scope["subprotocols"] if not name.startswith(SUBPROTOCOL)]
        caller = self._access.caller(scope, key)
        with self._life.accept(), self._quotas.taking(caller, session=opens_session(scope)) as headers:
            await self._app(scope, receive, _telling(send, headers) if headers else send)


def _telling(send: Send, headers: Mapping[str, str]) -> Send:
    """Sends these headers too."""

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return tell


class AccessLogMiddleware:
    """Follows requests and sessions. What an application raises ends here: it is logged and answered with 500."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: Iterable[BaseRoute]) -> None:
        self._app, self._metrics = app, metrics
        self._routes = [(getattr(route, "path_regex", None), getattr(route, "path_format", "")) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or lead one session."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        entry = RequestContext(_id(scope), self._metrics)
        told = current.set(entry)
        since, talk = monotonic(), _Exchange(entry, receive, send)
        try:
            await self._app(scope, talk.receive, talk.send)
        except asyncio.CancelledError:
            talk.break_off()
            raise
        except Exception as error:
            if talk.unread:
                entry.failed(HUNG_UP, "slow_reader")
            else:
                log.exception("a request failed for a reason that nobody foresaw")
                await talk.apologise(scope, error)
        finally:
            route, seconds = self._route(scope["path"]), monotonic() - since
            self._metrics.answered(route, talk.code, seconds)
            _note(scope, entry, route, talk.code, seconds)
            current.reset(told)

    def _route(self, path: str) -> str:
        """The template of a path, whoever answered it."""
        return next((template for regex, template in self._routes if regex and regex.match(path)), OTHER)


class _Exchange:
    """What goes to and fro in one request or session, and how it ended."""

    def __init__(self, entry: RequestContext, receive: Receive, send: Send) -> None:
        self._entry, self._receive, self._send = entry, receive, send
        self._status: int | None = None  # of the head, or of how a session was closed
        self._begun = self._ended = self._gone = False
        self.unread = False  # whether the application gave up waiting for the client to read

    async def receive(self) -> Message:
        """What the client says."""
        message = await self._receive()
        if not self._ended and message["type"] == "http.disconnect":
            self._gone = True
        elif not self._ended and message["type"] == "websocket.disconnect":
            self._close(message.get("code") or 1005, before=HUNG_UP)
        return message

    async def send(self, message: Message) -> None:
        """What the client is told, with its id in the head."""
        kind = message["type"]
        if kind in HEADS:
            self._begun = True
            self._status = message.get("status", 101)
            message["headers"] = [*message.get("headers", ()), (HEADER.encode(), self._entry.id.encode())]
        elif kind in ENDS:
            self._ended = not message.get("more_body", False)
        elif kind == "websocket.close" and not self._ended:
            code = message.get("code", 1000)
            self._close(code, before=REFUSED, why=self._entry.status if code == GOING_AWAY else None)
        try:
            await self._send(message)
        except asyncio.CancelledError:
            self.unread = True
            raise

    def break_off(self) -> None:
        """The server ends before the answer does."""
        if self.unread or not self._ended:
            self._entry.failed(503, "stopping")

    async def apologise(self, scope: Scope, error: Exception) -> None:
        """Tell the client of a bug, unless the answer has begun: then the connection ends without an end of it."""
        answer = bug(error)
        self._entry.failed(answer.status, answer.code)
        if not self._begun:
            await answer.response()(scope, self.receive, self.send)
        elif scope["type"] == "websocket" and not self._ended:
            await self.send({"type": "websocket.close", "code": 1011})

    @property
    def code(self) -> int:
        """The status that tells best how it ended, whatever the head said."""
        return HUNG_UP if self._gone else self._entry.status or self._status or 500

    def _close(self, code: int, *, before: int, why: int | None = None) -> None:
        """A session is closed; `before` is the status where it was not open yet, `why` that of what ended it."""
        self._ended = True
        self._status = CLOSED.get(code, 101) if self._begun else before
        self._entry.status = why  # that of an utterance that failed before does not count


def _id(scope: Scope) -> str:
    given = Headers(scope=scope).get(HEADER, "")
    return given if USABLE.fullmatch(given) else uuid.uuid4().hex


def _note(scope: Scope, entry: RequestContext, route: str, code: int, seconds: float) -> None:
    """The request's line in the log."""
    level = logging.WARNING if code >= 500 else logging.INFO
    if route.startswith(QUIET):
        level = logging.DEBUG
    known = {
        "method": scope.get("method", "WS"),
        "route": route,
        "status": code,
        "owner": scope.get("state", {}).get("owner"),
        "client": (scope.get("client") or (None,))[0],
        "seconds": seconds,
        "audio_seconds": entry.audio_seconds or None,
        "queue_seconds": entry.queue_seconds,
        "first_token_seconds": entry.first_token_seconds,
        "tokens": entry.tokens or None,
        "language": entry.language,
        "failure": entry.failure,
    }
    log.log(level, "request", extra={name: _short(value) for name, value in known.items() if value not in (None, "")})


def _short(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


class HeadMiddleware:
    """Has HEAD answered as GET is; uvicorn leaves out the body. Middleware outside this one, such as the log of
    requests, still sees HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or lead one session."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
