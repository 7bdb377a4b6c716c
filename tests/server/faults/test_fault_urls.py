"""URLs that try to reach into the server's own network: by odd spellings, by redirects, by other schemes."""

from collections.abc import Iterator

import pytest
from serving import Served, served
from strangers import ELSEWHERE, Server, only_home, serving

from runtime.audio import download
from runtime.transcriber import Transcriber

# Ways to write loopback or what else lies inside; {port} is that of a server that waits there.
SPELLINGS = (
    *("http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://localhost.:{port}/", "HTTP://LOCALHOST:{port}/"),
    *("http://127.1:{port}/", "http://2130706433:{port}/", "http://0x7f000001:{port}/", "http://0177.0.0.1:{port}/"),
    *("http://0.0.0.0:{port}/", "http://0:{port}/", "http://127.0.0.1.:{port}/", "http://127.255.255.254:{port}/"),
    *(
        "http://[::1]:{port}/",
        "http://[::]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::127.0.0.1]:{port}/",
    ),
    *("http://[64:ff9b::7f00:1]:{port}/", "http://[64:ff9b:1::7f00:1]/", "http://[fe80::1%25lo]:{port}/"),
    *("http://①②⑦.⓪.⓪.①:{port}/", "http://127。0。0。1:{port}/", "http://ｌｏｃａｌｈｏｓｔ:{port}/"),
    *("http://example.com@127.0.0.1:{port}/", "http://example.com:80@127.0.0.1:{port}/", "http://@127.0.0.1:{port}/"),
    *("http://127.0.0.1:{port}#@example.com/", "http://127.0.0.1:{port}?@example.com/", "http://a@b@127.0.0.1:{port}/"),
    *("http://127.0.0.1:{port}\\@example.com/", "http://127.0.0.1\t:{port}/", " http://127.0.0.1:{port}/"),
    *(
        "http://127.0.0.1%2f:{port}/",
        "http://127.0.0.1%00:{port}/",
        "http:///127.0.0.1:{port}/",
        "http:127.0.0.1:{port}/",
    ),
    *(
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/",
        "http://192.0.0.192/",
        "http://100.64.0.1/",
    ),
    *(
        "http://168.63.129.16/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.0.1/",
    ),
    *("file:///etc/passwd", "gopher://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/", "dict://127.0.0.1:{port}/"),
    *(
        "unix:///run/docker.sock",
        "//127.0.0.1:{port}/",
        "jar:http://127.0.0.1:{port}/!/",
        "data:audio/wav;base64,UklGRg==",
    ),
)


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[Served]:
    """A server as it comes, that fetches from the internet alone."""
    with served(transcriber, url_timeout_seconds=5) as running:
        yield running


@pytest.fixture(scope="module")
def inside() -> Iterator[Server]:
    """What nobody may reach."""
    with serving(lambda handler: handler.reply(b"secret"), "0.0.0.0") as running:
        yield running


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_lies_inside_is_not_asked(server: Served, inside: Server, spelling: str) -> None:
    url = spelling.replace("{port}", str(inside.server_port))
    part = {"type": "audio_url", "audio_url": {"url": url}}
    answers = [server.post(data={"url": url})]
    if not url.startswith("data:"):  # which a chat may hold
        answers.append(server.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [part]}]}))
    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] in ("url", "messages")
        assert "secret" not in answer.text
    assert inside.requests == []


@pytest.mark.parametrize(
    "target",
    [
        *("http://{inside}/", "http://user:word@{inside}/", "//{inside}/", "http://{inside}:80@{inside}/"),
        *("file:///etc/passwd", "gopher://{inside}/", "ftp://{inside}/", "http://169.254.169.254/", "http://[::1]/"),
    ],
)
def test_redirects_do_not_lead_inside(
    server: Served, inside: Server, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "is_public", only_home)  # the only address that stands for the internet here
    location = target.replace("{inside}", f"{ELSEWHERE}:{inside.server_port}")
    with serving(lambda handler: handler.reply(status=302, Location=location)) as outside:
        answer = server.post(data={"url": outside.url})
        assert outside.requests
    assert answer.status_code == 400
    assert "redirects to" in answer.json()["error"]["message"]
    assert inside.requests == []
