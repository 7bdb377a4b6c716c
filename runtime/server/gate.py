"""What every request passes first: whether it may be asked here, and whether the server accepts anything."""

from collections.abc import Mapping
from functools import partial

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.server.access import Access
from runtime.server.errors import ApiError
from runtime.server.guesses import Guesses
from runtime.server.keys import SUBPROTOCOL
from runtime.server.life import Life
from runtime.server.operators import check_operator
from runtime.server.origins import check_origin, opens_session
from runtime.server.quotas import Quotas
from runtime.server.rebinding import check_host

CALLERS = "/v1/"
OPERATORS = "/admin/"
OPEN = ("/health/", "/metrics")  # to everybody, also where there are keys


class Gate:
    """Refuses before anything of a body is read or a WebSocket is open; counts what it lets through to /v1 until it is
    answered or closed."""

    def __init__(self, app: ASGIApp, *, life: Life, access: Access) -> None:
        self._app, self._life, self._access = app, life, access
        self._quotas, self._guesses = Quotas(), Guesses()

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
