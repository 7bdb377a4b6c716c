"""Downloads that are refused: where they lead, how large they are, how long they take, what they are."""

import ipaddress
import re
import socket
from typing import Any

import pytest
from strangers import ELSEWHERE, Answer, Handler, get, only_home, refusal, serving

from env.settings import Settings
from runtime.audio.download import FetchError, is_public


def test_private_addresses_are_refused_unasked() -> None:
    with serving(lambda handler: handler.reply(b"secret")) as server:
        assert refusal(server.url, permitted=is_public) == "leads to an address that is not public"
        assert "not public" in refusal(server.url.replace("127.0.0.1", "localhost"), permitted=is_public)
        assert "not public" in refusal(server.url.replace("127.0.0.1", "2130706433"), permitted=is_public)
        assert server.requests == []


def test_a_redirect_to_a_private_address_is_refused_unasked() -> None:
    with serving(lambda handler: handler.reply(b"secret"), ELSEWHERE) as inside:
        target = inside.url.replace("http://", "http://user:word@") + "/metadata?token=hidden"
        with serving(lambda handler: handler.reply(status=302, Location=target)) as outside:
            reason = refusal(outside.url, permitted=only_home)
        assert inside.requests == []
    assert reason == f"redirects to {inside.url}/metadata?…, which leads to an address that is not public"


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers differently the second time; it stands in for the internet's."""
    asked = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else ELSEWHERE
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with serving(lambda handler: handler.reply(b"checked")) as server:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert get(server.url.replace("127.0.0.1", "rebinding.example"), permitted=only_home) == b"checked"
        assert server.requests[0][1]["Host"] == f"rebinding.example:{server.server_port}"
    assert asked == ["rebinding.example"]


def test_of_several_addresses_a_permitted_one_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(_: str, port: int, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (2, 3, 1)]

    with serving(lambda handler: handler.reply(b"hello")) as server:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert get(f"http://many.example:{server.server_port}") == b"hello"
        assert get(f"http://many.example:{server.server_port}", permitted=only_home) == b"hello"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0"),
        *("224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1"),
        *("100.64.0.1", "192.0.0.192", "192.88.99.1", "168.63.129.16"),
        *("fd00:ec2::254", "fec0::1", "3fff::1", "4000::1"),
        *("::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2001:0:7f00:1::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:224.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2002:7f00:1::"),
    ],
)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_endless_redirects_are_refused() -> None:
    with serving(lambda handler: handler.reply(status=302, Location=handler.path + "x")) as server:
        assert "comes after 5 redirects" in refusal(server.url)
        assert len(server.requests) == 6


@pytest.mark.parametrize(("status", "reason"), [(404, "404 Not Found"), (500, "500"), (204, "204"), (302, "302 Found")])
def test_other_answers_are_refused_by_their_status(status: int, reason: str) -> None:
    with serving(lambda handler: handler.reply(status=status)) as server:
        assert refusal(server.url).startswith(f"answers {reason}")


def test_too_large_a_body_is_refused_before_it_comes() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000000000")
        handler.end_headers()
        handler.server.stopping.wait()

    with serving(answer) as server:
        assert refusal(server.url) == "holds 1000000000000 bytes, the limit is 1000000"


def test_a_body_that_does_not_end_is_refused_at_the_limit() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.stopping.is_set():
            handler.wfile.write(bytes(10_000))

    with serving(answer) as server:
        assert refusal(server.url) == "holds more bytes than the limit of 1000000"


def test_a_body_that_breaks_off_is_refused() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"hello")

    def chunked(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"a\r\nhello")

    with serving(answer) as server:
        assert refusal(server.url) == "broke off after 5 of 10 bytes"
    with serving(chunked) as server:
        assert "cannot be fetched" in refusal(server.url)


def dripping(first: bytes, drop: bytes) -> Answer:
    """`first`, then `drop` again and again, far longer than the client should listen."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(first)
        for _ in range(500):
            if handler.server.stopping.wait(0.02):
                return
            handler.wfile.write(drop)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler: handler.server.stopping.wait(10),
        dripping(b"HTTP/1.1 200 OK\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["silence", "header", "body", "chunks"],
)
def test_a_server_that_hangs_or_drips_is_left_at_the_limit(answer: Answer) -> None:
    with serving(answer) as server:
        assert refusal(server.url, seconds=0.3) == "took longer than the limit of 0.3 s"


def test_a_server_that_never_shakes_hands_is_left_at_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert "took longer" in refusal(f"https://127.0.0.1:{port}/", seconds=0.2)
        assert "took longer" in refusal(f"http://127.0.0.1:{port}/", seconds=0.2)


def test_nobody_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/") == "cannot be fetched: Connection refused"
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert refusal("http://nothing.example/") == "cannot be fetched: Name or service not known"


def test_what_is_not_http_is_said() -> None:
    def answer(handler: Handler) -> None:
        handler.wfile.write(b"220 mail ready\r\n")

    with serving(answer) as server:
        assert "cannot be fetched" in refusal(server.url)
    with serving(lambda handler: handler.reply(b"zipped", Content_Encoding="gzip")) as server:
        assert "encoding gzip" in refusal(server.url)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/a.wav", "file:///etc/hostname", "http://", "http:///a.wav", "gopher://x", "http://[::1"),
        *("http://host:port/", "http://a..b/", "http://" + "a" * 70 + ".example/"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    assert refusal(url)


def test_a_redirect_may_not_leave_http() -> None:
    with serving(lambda handler: handler.reply(status=302, Location="file:///etc/hostname")) as server:
        assert refusal(server.url) == "redirects to file:///etc/hostname, which is not an http or https URL with a host"


def test_advice_names_settings_that_exist() -> None:
    limits: list[dict[str, Any]] = [{"permitted": is_public}, {"most_bytes": 10}, {"seconds": 0.0}]
    with serving(lambda handler: handler.reply(bytes(100))) as server:
        for limit in limits:
            with pytest.raises(FetchError) as caught:
                get(server.url, **limit)
            (name,) = re.findall(r"ASR_(\w+)", caught.value.advice)
            assert name.lower() in Settings.model_fields
