"""What every request for /v1 passes first: its key, and whether the server accepts anything."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.server.errors import ApiError
from runtime.server.keys import Keys
from runtime.server.life import Life

GUARDED = "/v1/"


class Gate:
    """Refuses before anything of a body is read; counts what it lets through until it is answered."""

    def __init__(self, app: ASGIApp, *, life: Life, keys: Keys) -> None:
        self._app, self._life, self._keys = app, life, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith(GUARDED):
            await self._app(scope, receive, send)
            return
        try:
            self._check_key(Headers(scope=scope))
            with self._life.accept():
                await self._app(scope, receive, send)
        except ApiError as refusal:
            await refusal.response()(scope, receive, send)

    def _check_key(self, headers: Headers) -> None:
        if not self._keys.digests:
            return
        given = headers.get("authorization", "")
        if self._keys.owner(given) is None:
            words = "the key is none of this server's" if given else "a key is needed: Authorization: Bearer KEY"
            raise ApiError(401, words, code="invalid_api_key")
