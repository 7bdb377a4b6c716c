"""GET /docs: the operations of the OpenAPI document as a page that needs nothing from elsewhere."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()

# No script, nothing fetched; the style in the page is all that is allowed.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}}
code{{font-size:.95em}}dt{{font-weight:600}}section{{border-top:1px solid #ccc}}</style></head>
<body><h1>{title} {version}</h1><p>Machine-readable: <a href="openapi.json">openapi.json</a></p>
{operations}
</body></html>
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
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


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
