"""GET /docs: the operations of the OpenAPI document as a page that needs nothing from other servers."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from runtime.server.policy import HEADERS

router = APIRouter()

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="static/icon.svg"><link rel="stylesheet" href="static/style.css"></head>
<body class="docs"><main class="card"><h1>{title} {version}</h1>
<p>Machine-readable: <a href="openapi.json">openapi.json</a>. To try it: <a href="./">a page</a>.</p>
{operations}
</main></body></html>
"""


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The page."""
    document = request.app.openapi()
    operations = [
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    page = PAGE.format(
        title=escape(document["info"]["title"]),
        version=escape(document["info"]["version"]),
        operations="\n".join(operations),
    )
    return HTMLResponse(page, headers=HEADERS)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    fields = ""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        rows = "".join(
            f"<dt><code>{escape(name)}</code></dt><dd>{escape(_explained(field))}</dd>"
            for name, field in content["schema"].get("properties", {}).items()
        )
        fields += f"<p>Body: <code>{escape(kind)}</code></p><dl>{rows}</dl>"
    words = escape(operation.get("description", ""))
    return f"<section><h2><code>{method} {escape(path)}</code></h2><p>{words}</p>{fields}</section>"


def _explained(field: dict[str, Any]) -> str:
    possible = field.get("enum") or field.get("items", {}).get("enum")
    choice = f" ({', '.join(map(str, possible))})" if possible else ""
    return f"{field.get('description', field.get('type', ''))}{choice}"
