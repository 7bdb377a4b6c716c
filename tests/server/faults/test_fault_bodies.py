"""Bodies that are no form, no JSON, no base64, or no HTTP at all."""

import base64
import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from broken_audio import cut, flip, recording, shuffle
from serving import PATIENCE, TRANSCRIPTIONS, Served, served

from runtime.transcriber import Transcriber

CHAT = "/v1/chat/completions"
BODIES, SEED = 200, 4

ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1.5,
        1e308,
        10**400,
        float("nan"),
        float("inf"),
        "",
        "\0",
        "\ud800",
        "😀" * 1000,
        "x" * 100_000,
    ),
    *(
        [],
        {},
        [[]],
        {"": None},
        [None] * 100,
        {"type": "input_audio"},
        "data:;base64,",
        "data:,",
        "http://",
        "http://[",
    ),
    *("file:///etc/passwd", "http://127.0.0.1:1/", "http://[::1]:1/", "//", "AAAA", "====", "A", "é", " UklG Rg==\n"),
)


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[Served]:
    """Answers of a few tokens are enough."""
    with served(transcriber, max_new_tokens=4) as running:
        yield running


def spoken(file: bytes) -> dict[str, Any]:
    """A chat that holds a file."""
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(file).decode(), "format": "wav"}}
    linked = {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,"}}
    system = {"role": "system", "content": [{"type": "text", "text": "names"}]}
    messages = [system, {"role": "user", "content": [part, linked][:1]}]
    return {"model": "demo", "messages": messages, "stream": False, "temperature": 0}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def misshapen(chance: random.Random) -> bytes:
    """A chat's body with something in it that does not belong there."""
    body = spoken(recording("16 bit.wav"))
    for _ in range(chance.choice((1, 1, 2))):
        holder, key = chance.choice(list(places(body)))
        odd = chance.choice(ODD)
        if isinstance(holder, dict) and chance.random() < 0.3:
            holder[str(odd)] = holder.pop(key)
        elif chance.random() < 0.2:
            del holder[key]
        else:
            holder[key] = odd
    text = json.dumps(body).encode()
    return chance.choice((lambda: text, lambda: text, lambda: text, lambda: damaged(text, chance)))()


def damaged(text: bytes, chance: random.Random) -> bytes:
    """Bytes that are hardly JSON any more."""
    return chance.choice((cut, flip, shuffle, lambda file, _: b"[" * len(file), lambda file, _: file + file))(
        text, chance
    )


def test_broken_chats_are_refused(server: Served) -> None:
    chance = random.Random(SEED)
    refused = 0
    with httpx.Client(base_url=server.url, timeout=PATIENCE, headers={"Content-Type": "application/json"}) as client:
        for _ in range(BODIES):
            body = misshapen(chance)
            answer = client.post(CHAT, content=body)
            assert answer.status_code in (200, 400, 404), (body[:200], answer.text)
            refused += answer.status_code != 200
    assert refused > BODIES / 2


def raw(server: Served, request: bytes) -> bytes:
    """What is answered to bytes of which there are no more; the server may close while they are still sent."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while piece := connection.recv(4096):
                answer += piece
    return answer


def posted(
    body: bytes, *headers: str, length: int | None = None, kind: str = "multipart/form-data; boundary=y"
) -> bytes:
    """A request as bytes."""
    lines = [f"POST {TRANSCRIPTIONS} HTTP/1.1", "Host: x", "Connection: close", f"Content-Type: {kind}", *headers]
    if not any("Encoding" in line for line in headers):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def part(*headers: str, body: bytes = b"x") -> bytes:
    """A form with one part."""
    return b"--y\r\n" + "\r\n".join(headers).encode() + b"\r\n\r\n" + body + b"\r\n--y--\r\n"


FILE = 'Content-Disposition: form-data; name="file"; filename="a.wav"'
CHUNKED = "Transfer-Encoding: chunked"

RAW: dict[str, bytes] = {
    "no boundary": posted(b"x", kind="multipart/form-data"),
    "an empty boundary": posted(b"x", kind='multipart/form-data; boundary=""'),
    "an endless boundary": posted(b"x", kind="multipart/form-data; boundary=" + "y" * 10_000),
    "a boundary in other letters": posted(part(FILE), kind="multipart/form-data; boundary=é"),
    "a charset that is none": posted(part(FILE), kind="multipart/form-data; boundary=y; charset=klingon"),
    "a charset for bytes": posted(part(FILE), kind="multipart/form-data; boundary=y; charset=zlib"),
    "a charset of tricks": posted(
        part('Content-Disposition: form-data; name="prompt"', body=rb"\ud800"),
        kind="multipart/form-data; boundary=y; charset=unicode_escape",
    ),
    "a charset that is slow": posted(
        part('Content-Disposition: form-data; name="prompt"', body=b"a" * 500_000 + b"-" + b"b" * 500_000),
        kind="multipart/form-data; boundary=y; charset=punycode",
    ),
    "a charset of nothing": posted(part(FILE), kind="multipart/form-data; boundary=y; charset=\0"),
    "nothing": posted(b""),
    "only an end": posted(b"--y--\r\n"),
    "no end": posted(part(FILE)[:-7]),
    "no name": posted(part("Content-Disposition: form-data")),
    "no headers": posted(part("")),
    "an odd header": posted(part(FILE, "\xff\xfe: \x01")),
    "endless header names": posted(part(FILE, "x" * 200_000 + ": y")),
    "endless header values": posted(part(FILE, "x: " + "y" * 200_000)),
    "endless headers": posted(part(FILE, *["x: y"] * 50_000)),
    "many parts": posted(
        b"".join(part('Content-Disposition: form-data; name="a"')[:-7] for _ in range(1000)) + b"--y--\r\n"
    ),
    "a huge field": posted(part('Content-Disposition: form-data; name="prompt"', body=b"x" * (2 << 20))),
    "a field of bytes": posted(part('Content-Disposition: form-data; name="prompt"', body=bytes(range(256)))),
    "a name of bytes": posted(part('Content-Disposition: form-data; name="@"').replace(b"@", b"\xff")),
    "a filename of zeros": posted(part('Content-Disposition: form-data; name="file"; filename="\0"')),
    "a filename of paths": posted(part('Content-Disposition: form-data; name="file"; filename="../\r\n/a"')),
    "less than declared": posted(part(FILE), length=10_000),
    "more than declared": posted(part(FILE), length=3),
    "two lengths": posted(part(FILE), "Content-Length: 5"),
    "a negative length": posted(part(FILE), length=-1),
    "a length beyond words": posted(part(FILE), length=10**30),
    "both kinds of length": posted(part(FILE), CHUNKED, "Content-Length: 5"),
    "chunks of nothing": posted(b"0\r\n\r\n", CHUNKED),
    "chunks of no size": posted(b"\r\nx\r\n0\r\n\r\n", CHUNKED),
    "chunks of words": posted(b"chunk\r\nx\r\n", CHUNKED),
    "chunks of negative size": posted(b"-1\r\nx\r\n", CHUNKED),
    "chunks of endless size": posted(b"f" * 100 + b"\r\nx\r\n", CHUNKED),
    "chunks with endless extensions": posted(b"1;" + b"x" * 100_000 + b"\r\nx\r\n0\r\n\r\n", CHUNKED),
    "chunks that stop": posted(b"a\r\nx", CHUNKED),
    "chunked twice": posted(b"0\r\n\r\n", CHUNKED, CHUNKED),
    "endless trailers": posted(b"0\r\n" + b"x: y\r\n" * 10_000, CHUNKED),
    "gzip": posted(part(FILE), "Content-Encoding: gzip"),
    "form in the address": posted(b"&".join([b"a=1"] * 1000), kind="application/x-www-form-urlencoded"),
    "bytes in the address": posted(b"prompt=%ff%00&url=%", kind="application/x-www-form-urlencoded"),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "an endless path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "endless headers of HTTP": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000,
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "spaces": b"GET  /v1/models HTTP/1.1 \r\nHost: x\r\n\r\n",
    "a path in escapes": b"GET /v1/models/%ff%00%2e%2e%2f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a websocket to nothing": b"GET /v1/x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_hardly_http_is_refused(server: Served, name: str) -> None:
    answer = raw(server, RAW[name])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    assert b"Traceback" not in answer
    assert server.server_state.wait_idle(PATIENCE)
    assert server.get("/health/ready").status_code == 200
