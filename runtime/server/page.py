"""GET /: a page to try the server with, from the files in `static`."""

import hashlib
import json
from functools import cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from runtime.languages import LANGUAGES
from runtime.server.policy import HEADERS

STATIC = Path(__file__).with_name("static")
HOME = "index.html"
# All that is served, by suffix: a file that merely lies there is not.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home(request: Request) -> Response:
    """The page."""
    return _answer(request, HOME)


@router.get("/static/{name}")
async def asset(request: Request, name: str) -> Response:
    """What the page is made of. Raises HTTPException, 404, for anything else."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    """A file, unless the browser has this very version of it."""
    content = files().get(name)
    if content is None:
        raise HTTPException(404)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag, "Cache-Control": "no-cache"}  # kept, but asked for each time
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=TYPES[Path(name).suffix])


@cache
def files() -> dict[str, bytes]:
    """Content by name: the packaged files, and the languages by code and by their English and Chinese names."""
    found = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in TYPES}
    names = [{"code": language.code, "en": english, "zh": language.chinese} for english, language in LANGUAGES.items()]
    return {**found, "languages.json": json.dumps(names, ensure_ascii=False).encode()}
