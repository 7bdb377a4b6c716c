"""The application: every route behind the gate, every failure in one shape."""

from fastapi import FastAPI

from runtime.ops.lifecycle.image import version
from runtime.server import admin, chat, docs, health, info, metrics, models, page, realtime, transcriptions
from runtime.server.errors import add_handlers
from runtime.server.gate import Gate
from runtime.server.keys import Keys
from runtime.server.life import Life


def create_app(life: Life, *, keys: Keys | None = None) -> FastAPI:
    """The HTTP API. It answers at once; requests for transcripts are accepted when `life` is ready."""
    app = FastAPI(title="Qwen3-ASR", version=version(), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.life = life
    for module in (health, transcriptions, chat, realtime, models, info, admin, metrics, docs, page):
        app.include_router(module.router)
    add_handlers(app)
    app.add_middleware(Gate, life=life, keys=keys or Keys())
    return app
