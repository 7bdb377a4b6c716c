"""The HTTP application: every route behind the admission middleware, every error in one shape."""

from fastapi import FastAPI

from runtime.server.auth import Access
from runtime.server.errors import add_handlers
from runtime.server.metrics import Metrics
from runtime.server.middleware import AccessLogMiddleware, AdmissionMiddleware, HeadMiddleware, PlainAddressMiddleware
from runtime.server.openapi import responses_of
from runtime.server.origins import add_cors
from runtime.server.realtime import route as realtime
from runtime.server.routes import admin, chat, health, info, transcriptions, web
from runtime.server.state import ServerState
from runtime.version import version

ROUTERS = (
    health.router,
    transcriptions.router,
    chat.router,
    realtime.router,
    info.models_router,
    info.router,
    admin.router,
    health.metrics_router,
    web.docs_router,
    web.router,
)


def create_app(server_state: ServerState, *, access: Access | None = None) -> FastAPI:
    """Build the HTTP API. It answers at once, and accepts requests for transcripts when `server_state` is ready."""
    app = FastAPI(title="Qwen3-ASR", version=version(), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.server_state = server_state
    app.state.metrics = measured = Metrics()
    measured.registry.register(health.ServerCollector(server_state))
    for router in ROUTERS:
        app.include_router(router, responses=responses_of(router.prefix))
    add_handlers(app)
    access = access or Access()
    app.add_middleware(HeadMiddleware)  # innermost
    app.add_middleware(AdmissionMiddleware, server_state=server_state, access=access)
    add_cors(app, access.origins)
    routes = [*app.routes, *(route for router in ROUTERS for route in router.routes)]
    app.add_middleware(AccessLogMiddleware, metrics=measured, routes=routes)
    app.add_middleware(PlainAddressMiddleware)
    return app
