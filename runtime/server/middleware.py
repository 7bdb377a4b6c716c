"""ASGI middleware around all routes, from the outermost: client addresses, access log, admission, HEAD."""

import asyncio
import ipaddress
import logging
import re
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from time import monotonic

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.frames import CloseCode

from runtime.server.auth import KEY_SUBPROTOCOL, Access, KeyAttempts, check_admin
from runtime.server.errors import CLIENT_CLOSED_REQUEST, ApiError, internal_error
from runtime.server.metrics import Metrics
from runtime.server.origins import check_host, check_origin, opens_session
from runtime.server.rate_limit import Quotas
from runtime.server.request_context import RequestContext, current_request
from runtime.server.state import ServerState
from runtime.urls import plain

API_PREFIX = "/v1/"
ADMIN_PREFIX = "/admin/"
PUBLIC_PREFIXES = ("/health/", "/metrics")  # to everybody, also where there are keys

REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}")  # an id that clients may choose
UNMATCHED_ROUTE = "other"  # what no route answers, so that paths that somebody made up do not become metrics
QUIET_ROUTES = ("/health/", "/metrics")  # asked every few seconds
START_MESSAGES = ("http.response.start", "websocket.accept", "websocket.http.response.start")
BODY_MESSAGES = ("http.response.body", "websocket.http.response.body")
# The HTTP status that is logged for a WebSocket's close code; 101: as it should be.
STATUS_OF_CLOSE_CODE: Mapping[int, int] = {
    CloseCode.NORMAL_CLOSURE: 101,
    CloseCode.GOING_AWAY: 101,  # unless the server says why
    CloseCode.PROTOCOL_ERROR: 400,
    CloseCode.UNSUPPORTED_DATA: 400,
    CloseCode.NO_STATUS_RCVD: 101,
    CloseCode.ABNORMAL_CLOSURE: CLIENT_CLOSED_REQUEST,  # without a close frame
    CloseCode.INVALID_DATA: 400,
    CloseCode.POLICY_VIOLATION: 403,
    CloseCode.MESSAGE_TOO_BIG: 413,
    CloseCode.INTERNAL_ERROR: 500,
    CloseCode.SERVICE_RESTART: 503,
    CloseCode.TRY_AGAIN_LATER: 503,
}
STATUS_REJECTED = 403  # what uvicorn answers where a session is closed before it was accepted

log = logging.getLogger(__name__)


class PlainAddressMiddleware:
    """Gives IPv4 clients their IPv4 address, also where one IPv6 socket serves both families: limits, logs and admin
    calls tell callers apart by it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("client"):
            address, port = scope["client"]
            scope["client"] = (str(plain(ipaddress.ip_address(address))), port)
        await self._app(scope, receive, send)


class AdmissionMiddleware:
    """Authenticates requests and checks limits before any of a body is read or a WebSocket is accepted; counts requests
    to /v1 until they are answered or closed."""

    def __init__(self, app: ASGIApp, *, server_state: ServerState, access: Access) -> None:
        self._app, self._server_state, self._access = app, server_state, access
        self._quotas, self._key_attempts = Quotas(), KeyAttempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit one request or session, or answer with what is wrong. A WebSocket that is not accepted yet is answered
        as HTTP by uvicorn."""
        path = scope.get("path", "")
        try:
            if path.startswith(ADMIN_PREFIX):
                check_admin(scope, self._access.admin, self._key_attempts)
            elif not (self._access.keys.known or path.startswith(PUBLIC_PREFIXES)):
                check_host(scope, self._access.hosts, self._access.own_names)
            if path.startswith(API_PREFIX):
                await self._admit(scope, receive, send)
                return
            await self._app(scope, receive, send)
        except ApiError as refusal:  # of a WebSocket too: uvicorn answers what is not open yet as HTTP
            await refusal.response()(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_origin(scope, self._access.origins, keyed=bool(self._access.keys.known))
        key = self._access.key(scope, self._key_attempts)
        state = scope.setdefault("state", {})
        state["owner"] = key.owner if key else ""
        state["is_revoked"] = partial(self._access.is_revoked, key)
        if "subprotocols" in scope:  # the key is not for the routes
            scope["subprotocols"] = [name for name in scope["subprotocols"] if not name.startswith(KEY_SUBPROTOCOL)]
        caller = self._access.caller(scope, key)
        with self._server_state.accept(), self._quotas.reserve(caller, session=opens_session(scope)) as headers:
            await self._app(scope, receive, _with_headers(send, headers) if headers else send)


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Wrap `send` to add headers to the answer."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers


class AccessLogMiddleware:
    """Logs and measures requests and sessions. An exception of the application ends here: logged, and answered with
    500."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: Iterable[BaseRoute]) -> None:
        self._app, self._metrics = app, metrics
        self._routes = [(getattr(route, "path_regex", None), getattr(route, "path_format", "")) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        context = RequestContext(_request_id(scope), self._metrics)
        token = current_request.set(context)
        started_at, exchange = monotonic(), _Exchange(context, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            exchange.abort()
            raise
        except Exception as error:
            if exchange.slow_reader:
                context.record_failure(CLIENT_CLOSED_REQUEST, "slow_reader")
            else:
                log.exception("a request failed with an unexpected error")
                await exchange.send_internal_error(scope, error)
        finally:
            route, seconds = self._route(scope["path"]), monotonic() - started_at
            self._metrics.request_done(route, exchange.code, seconds)
            _log_request(scope, context, route, exchange.code, seconds)
            current_request.reset(token)

    def _route(self, path: str) -> str:
        """The path's template, whoever answered it."""
        return next((template for regex, template in self._routes if regex and regex.match(path)), UNMATCHED_ROUTE)


class _Exchange:
    """The messages of one request or session, and how it ended."""

    def __init__(self, context: RequestContext, receive: Receive, send: Send) -> None:
        self._context, self._receive, self._send = context, receive, send
        self._status: int | None = None  # of the head, or of how a session was closed
        self._started = self._ended = self._hung_up = False
        self.slow_reader = False  # whether the application gave up waiting for the client to read

    async def receive(self) -> Message:
        """Receive a message, noticing whether the client hung up."""
        message = await self._receive()
        if not self._ended and message["type"] == "http.disconnect":
            self._hung_up = True
        elif not self._ended and message["type"] == "websocket.disconnect":
            self._set_closed(message.get("code") or CloseCode.NO_STATUS_RCVD, unopened_status=CLIENT_CLOSED_REQUEST)
        return message

    async def send(self, message: Message) -> None:
        """Send a message, with the request's id in its headers."""
        message_type = message["type"]
        if message_type in START_MESSAGES:
            self._started = True
            self._status = message.get("status", 101)
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID_HEADER.encode(), self._context.id.encode())]
        elif message_type in BODY_MESSAGES:
            self._ended = not message.get("more_body", False)
        elif message_type == "websocket.close" and not self._ended:
            code = message.get("code", CloseCode.NORMAL_CLOSURE)
            self._set_closed(
                code,
                unopened_status=STATUS_REJECTED,
                cause=self._context.status if code == CloseCode.GOING_AWAY else None,
            )
        try:
            await self._send(message)
        except asyncio.CancelledError:
            self.slow_reader = True
            raise

    def abort(self) -> None:
        """Record that the server stopped before the answer was complete."""
        if self.slow_reader or not self._ended:
            self._context.record_failure(503, "stopping")

    async def send_internal_error(self, scope: Scope, error: Exception) -> None:
        """Answer with 500; if the answer has begun, the connection ends without completing it."""
        answer = internal_error(error)
        self._context.record_failure(answer.status, answer.code)
        if not self._started:
            await answer.response()(scope, self.receive, self.send)
        elif scope["type"] == "websocket" and not self._ended:
            await self.send({"type": "websocket.close", "code": CloseCode.INTERNAL_ERROR})

    @property
    def code(self) -> int:
        """The status to record, whatever the answer began with."""
        return CLIENT_CLOSED_REQUEST if self._hung_up else self._context.status or self._status or 500

    def _set_closed(self, code: int, *, unopened_status: int, cause: int | None = None) -> None:
        """Record how a session was closed: `unopened_status` if it was not accepted yet, `cause` the status of what
        ended it."""
        self._ended = True
        self._status = STATUS_OF_CLOSE_CODE.get(code, 101) if self._started else unopened_status
        self._context.status = cause  # that of an utterance that failed before does not count


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if REQUEST_ID_PATTERN.fullmatch(given) else uuid.uuid4().hex


def _log_request(scope: Scope, context: RequestContext, route: str, code: int, seconds: float) -> None:
    level = logging.WARNING if code >= 500 else logging.INFO
    if route.startswith(QUIET_ROUTES):
        level = logging.DEBUG
    fields = {
        "method": scope.get("method", "WS"),
        "route": route,
        "status": code,
        "owner": scope.get("state", {}).get("owner"),
        "client": (scope.get("client") or (None,))[0],
        "seconds": seconds,
        "audio_seconds": context.audio_seconds or None,
        "queue_seconds": context.queue_seconds,
        "first_token_seconds": context.first_token_seconds,
        "tokens": context.tokens or None,
        "language": context.language,
        "failure": context.failure,
    }
    log.log(
        level, "request", extra={name: _rounded(value) for name, value in fields.items() if value not in (None, "")}
    )


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


class HeadMiddleware:
    """Has HEAD answered as GET; uvicorn leaves out the body. Middleware outside this one, such as the access log, still
    sees HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
