"""The web page, its files and the API's page, with a Content-Security-Policy that lets them talk to this server
alone."""

import hashlib
import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from runtime.languages import LANGUAGES

SECURITY_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "media-src 'self' blob:",  # a recording, or a file that was chosen
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

STATIC = Path(__file__).parents[1] / "static"
HOME = "index.html"
# All that is served, by suffix: a file that merely lies there is not.
STATIC_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}

router = APIRouter(include_in_schema=False)

docs_router = APIRouter()

DOCS_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="static/icon.svg"><link rel="stylesheet" href="static/style.css"></head>
<body class="docs"><main class="card"><h1>{title} {version}</h1>
<p>Machine-readable: <a href="openapi.json">openapi.json</a>. To try it: <a href="./">a page</a>.</p>
{operations}
</main></body></html>
"""


@router.get("/")
async def home(request: Request) -> Response:
    return _answer(request, HOME)


@router.get("/static/{name}")
async def asset(request: Request, name: str) -> Response:
    """What the page is made of. Raises HTTPException, 404, for anything else."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    """A file; 304 if the browser has this version."""
    content = files().get(name)
    if content is None:
        raise HTTPException(404)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**SECURITY_HEADERS, "ETag": tag, "Cache-Control": "no-cache"}  # kept, but asked for each time
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=STATIC_TYPES[Path(name).suffix])


@cache
def files() -> dict[str, bytes]:
    """Contents by name: the packaged files, and languages.json with each language's code, English and Chinese name."""
    found = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in STATIC_TYPES}
    names = [{"code": language.code, "en": english, "zh": language.chinese} for english, language in LANGUAGES.items()]
    return {**found, "languages.json": json.dumps(names, ensure_ascii=False).encode()}


@docs_router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    document = request.app.openapi()
    operations = [
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    page = DOCS_TEMPLATE.format(
        title=escape(document["info"]["title"]),
        version=escape(document["info"]["version"]),
        operations="\n".join(operations),
    )
    return HTMLResponse(page, headers=SECURITY_HEADERS)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    fields = ""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        rows = "".join(
            f"<dt><code>{escape(name)}</code></dt><dd>{escape(_description(field))}</dd>"
            for name, field in content["schema"].get("properties", {}).items()
        )
        fields += f"<p>Body: <code>{escape(kind)}</code></p><dl>{rows}</dl>"
    description = escape(operation.get("description", ""))
    return f"<section><h2><code>{method} {escape(path)}</code></h2><p>{description}</p>{fields}</section>"


def _description(field: dict[str, Any]) -> str:
    possible = field.get("enum") or field.get("items", {}).get("enum")
    choice = f" ({', '.join(map(str, possible))})" if possible else ""
    return f"{field.get('description', field.get('type', ''))}{choice}"
