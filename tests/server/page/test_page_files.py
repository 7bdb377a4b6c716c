"""What the page is made of, as the server sends it."""

import re

import httpx
import pytest
from serving import Served

from runtime.languages import LANGUAGES
from runtime.server.routes.web import STATIC, files


def test_all_that_the_page_needs_comes_from_this_server(server: Served) -> None:
    due, found = ["/"], {}
    while due:
        path = due.pop()
        answer = server.get(path)
        assert answer.status_code == 200, path
        found[path.rpartition("/")[2]] = answer.headers["content-type"].partition(";")[0]
        words = re.findall(r'(?:href|src)="(static/[^"]+)"|\("(static/[^"]+)"|from "\./([^"]+)"', answer.text)
        names = ["/static/" + (linked or called or imported).rpartition("/")[2] for linked, called, imported in words]
        due += [name for name in dict.fromkeys(names) if name.rpartition("/")[2] not in found]
        assert not re.search(r"(https?:)?//(?!www\.w3\.org)[a-z]+\.", answer.text)
        assert "innerHTML" not in answer.text
    assert set(found) - {""} == set(files()) - {"index.html"}
    assert {found["app.js"], found["style.css"], found["icon.svg"], found["languages.json"], found[""]} == {
        "text/javascript",
        "text/css",
        "image/svg+xml",
        "application/json",
        "text/html",
    }


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/docs"])
def test_the_browser_is_told_what_the_page_may_do(server: Served, path: str) -> None:
    headers = server.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "microphone=(self)" in headers["Permissions-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_browser_that_has_a_file_is_not_sent_it_again(server: Served) -> None:
    first = server.get("/static/style.css")
    again = server.get("/static/style.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert server.get("/static/style.css", headers={"If-None-Match": '"other"'}).content == first.content


def test_only_the_page_is_served(server: Served) -> None:
    assert (STATIC / "screenshot.png").is_file()
    for name in ("screenshot.png", "nothing.js", "..%2Fpage.py", "%2e%2e/page.py"):
        assert server.get(f"/static/{name}").status_code == 404, name
    head = httpx.head(server.url, timeout=60)
    assert (head.status_code, head.content) == (200, b"")
    assert httpx.post(server.url, timeout=60).status_code == 405


def test_languages_have_their_names(server: Served) -> None:
    languages = server.get("/static/languages.json").json()
    assert [language["en"] for language in languages] == list(LANGUAGES)
    assert {"code": "yue", "en": "Cantonese", "zh": "粤语"} in languages
