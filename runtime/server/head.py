"""HEAD, which load balancers and `wget --spider` ask for, on every route that answers GET."""

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """Has HEAD answered as GET is; uvicorn leaves out the body. Middleware outside this one, such as the log of
    requests, still sees HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or lead one session."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
