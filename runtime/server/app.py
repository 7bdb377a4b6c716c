"""The application: every route behind the gate, every failure in one shape."""

from fastapi import FastAPI

from runtime.server import admin, chat, docs, health, info, metrics, models, page, realtime, transcriptions
from runtime.server.access import Access
from runtime.server.errors import add_handlers
from runtime.server.gate import Gate
from runtime.server.head import HeadAsGet
from runtime.server.instruments import Metrics
from runtime.server.journal import Journal
from runtime.server.life import Life
from runtime.server.origins import let_in
from runtime.server.responses import answers
from runtime.version import version

MODULES = (health, transcriptions, chat, realtime, models, info, admin, metrics, docs, page)


def create_app(life: Life, *, access: Access | None = None) -> FastAPI:
    """The HTTP API. It answers at once; requests for transcripts are accepted when `life` is ready."""
    app = FastAPI(title="Qwen3-ASR", version=version(), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.life = life
    app.state.metrics = measured = Metrics()
    measured.registry.register(metrics.Now(life))
    for module in MODULES:
        app.include_router(module.router, responses=answers(module.router.prefix))
    add_handlers(app)
    access = access or Access()
    app.add_middleware(HeadAsGet)  # innermost
    app.add_middleware(Gate, life=life, access=access)
    let_in(app, access.origins)
    routes = [*app.routes, *(route for module in MODULES for route in module.router.routes)]
    app.add_middleware(Journal, metrics=measured, routes=routes)
    return app
