"""Downloads through a proxy on loopback, as HTTP_PROXY and its kin name it."""

import base64
import socket
import ssl
from pathlib import Path

import pytest
from proxying import closed_port, forget_proxies, proxying
from strangers import Handler, Server, get, refusal, self_signed, serving

from runtime import proxies
from runtime.audio.download import FetchError, is_public

FAR = "files.invalid"  # a name that only the proxy knows
CREDENTIALS = "Basic " + base64.b64encode(b"me:ses/ame").decode()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("https"), FAR)


def place(server: Server) -> tuple[str, int]:
    return "127.0.0.1", server.server_port


def hello(handler: Handler) -> None:
    handler.reply(b"hello")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_name_that_only_the_proxy_knows_is_fetched_through_it(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hello) as server, proxying({FAR: place(server)}) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert get(f"http://{FAR}/a file.wav?key=1 2", permitted=is_public) == b"hello"
        (path, headers), (method, target, _) = server.requests[0], proxy.requests[0]
    assert (method, target) == ("GET", f"http://{FAR}/a%20file.wav?key=1%202")
    assert (path, headers["Host"]) == ("/a%20file.wav?key=1%202", FAR)


def test_a_proxy_without_a_scheme_is_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hello) as server, proxying({FAR: place(server)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
        assert get(f"http://{FAR}/") == b"hello"


def test_the_hosts_password_is_for_the_host_and_the_proxys_for_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hello) as server, proxying({f"{FAR}:8080": place(server)}, credentials=CREDENTIALS) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:ses%2Fame@"))
        assert get(f"http://you:secret@{FAR}:8080/") == b"hello"
        ((_, target, headers),) = proxy.requests
    assert target == f"http://{FAR}:8080/"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"you:secret").decode()


def test_https_is_encrypted_to_the_host(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with (
        serving(hello, context=context) as server,
        proxying({f"{FAR}:443": place(server)}, credentials=CREDENTIALS) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url.replace("http://", "http://me:ses%2Fame@"))
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        reason = refusal(f"https://{FAR}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        assert get(f"https://{FAR}/clip.wav?key=hidden") == b"hello"
        assert {(method, target) for method, target, _ in proxy.requests} == {("CONNECT", f"{FAR}:443")}
        assert "Proxy-Authorization" not in server.requests[0][1]
    assert f"through the proxy {proxy.url}: " in reason
    assert "certificate verify failed" in reason


# Who is reached directly


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        *(("example.com", "example.com"), ("example.com", "a.b.example.com"), (".example.com", "example.com")),
        *(("*.example.com", "a.example.com"), ("EXAMPLE.com", "example.COM"), ("example.com", "example.com.")),
        *(
            ("example.com:443", "example.com"),
            ("other, example.com", "example.com"),
            ("a b example.com", "example.com"),
        ),
        *(("*", "example.com"), ("a,*", "example.com"), ("10.1.2.3", "10.1.2.3"), ("10.0.0.0/8", "10.1.2.3")),
        *(("[fd00::1]", "fd00::1"), ("fd00::/8", "fd00::1"), ("fd00::1", "fd00::1")),
        *(("", "127.0.0.1"), ("", "localhost"), ("", "a.localhost"), ("", "::1"), ("", "LOCALHOST.")),
    ],
)
def test_who_is_exempt(no_proxy: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxies.find_proxy("https", host) is None


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        *(("example.com", "notexample.com"), ("a.example.com", "example.com"), ("example.com:80", "example.com")),
        *(
            ("10.0.0.0/8", "11.1.2.3"),
            ("10.0.0.0/8", "ten.example"),
            ("10.1.2.3/wrong", "10.1.2.3"),
            (",", "a.example"),
        ),
        *(("", "localhost.example"), ("127.0.0.1,localhost", "example.com")),
    ],
)
def test_who_is_not_exempt(no_proxy: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    proxy = proxies.find_proxy("https", host)
    assert proxy
    assert (proxy.variable, proxy.address) == ("HTTPS_PROXY", "http://proxy.example:3128")


def test_loopback_and_what_no_proxy_lists_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hello) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert get(server.url) == b"hello"
        assert "an address that is not public" in refusal(server.url, permitted=is_public)
        monkeypatch.setenv("NO_PROXY", ".invalid")
        assert refusal(f"http://{FAR}/") == "cannot be fetched: Name or service not known"


def test_each_redirect_takes_its_own_way(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    with serving(hello) as near, serving(lambda handler: handler.reply(status=302, Location=near.url)) as first:
        onward = f"http://{FAR}/first"
        with (
            serving(lambda handler: handler.reply(status=302, Location=onward), context=context) as secure,
            proxying({FAR: place(first), f"{FAR}:443": place(secure)}) as proxy,
        ):
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.setenv("https_proxy", proxy.url)
            assert get(f"https://{FAR}/") == b"hello"
            assert [(method, target) for method, target, _ in proxy.requests] == [
                ("CONNECT", f"{FAR}:443"),
                ("GET", onward),
            ]


# What stays inside


@pytest.mark.parametrize(
    "host",
    [
        *("10.1.2.3", "169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "[::ffff:10.0.0.1]", "0xa9fea9fe"),
        *("127.1", "2130706433", "0177.0.0.1", "0x7f000001", "169.254.169.254.", "127.0.0.1.", "127。0。0。1"),
        *("localhost", "localhost.", "a.localhost", "[::1]", "0.0.0.0", "1.2.3.4.5", "0x7f.0x0.0x0.0x1"),
        *("[fe80::1%25lo]", "10.0.0.1%2f", "internal name", "10.0.0.1%00"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_not_public_is_not_asked_of_the_proxy(scheme: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxying({}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        assert refusal(f"{scheme}://{host}/", permitted=is_public)
        assert proxy.requests == []


def test_a_name_that_leads_inside_is_not_asked_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that has one address outside and one inside: which of them the proxy takes, nobody here knows."""

    def resolve(_: str, port: int, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("1.1.1.1", "10.0.0.1")]

    with serving(hello) as server, proxying({"split.example": place(server)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert refusal("http://split.example/", permitted=is_public) == "leads to an address that is not public"
    assert proxy.requests == []


@pytest.mark.parametrize("target", ["http://10.0.0.1/", "https://169.254.169.254/meta", "http://127.0.0.1:1/"])
def test_a_redirect_behind_the_proxy_is_judged_again(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving(lambda handler: handler.reply(status=302, Location=target)) as server,
        proxying({FAR: place(server)}) as proxy,
    ):
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        reason = refusal(f"http://{FAR}/", permitted=is_public)
    assert reason == f"redirects to {target}, which leads to an address that is not public"
    assert len(proxy.requests) == 1


def test_what_is_permitted_inside_may_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hello) as server, proxying({"10.9.8.7": place(server)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert get("http://10.9.8.7/") == b"hello"


# What goes wrong


def failure(url: str, **limits: float) -> FetchError:
    with pytest.raises(FetchError) as caught:
        get(url, **limits)  # type: ignore[arg-type]
    assert "sesame" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("socks5://me:sesame@127.0.0.1:1080", "names a socks5 proxy, only http proxies can be used"),
        ("https://me:sesame@127.0.0.1:1080", "names a https proxy, only http proxies can be used"),
        ("http://me:sesame@127.0.0.1:port", "holds no proxy's address"),
        ("http://", "holds no proxy's address"),
        ("http://[::1", "holds no proxy's address"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    error = failure(f"http://{FAR}/")
    assert error.reason == f"cannot be fetched: ALL_PROXY {reason}"
    assert "http://proxy.example:3128" in error.advice


def test_a_proxy_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:sesame@127.0.0.1:{port}")
    error = failure(f"https://{FAR}/")
    assert error.reason == f"cannot be fetched through the proxy http://127.0.0.1:{port}: Connection refused"
    assert error.advice == "check HTTPS_PROXY"
    monkeypatch.setenv("HTTPS_PROXY", "http://me:sesame@proxy.invalid:3128")
    reason = failure(f"https://{FAR}/").reason
    assert reason.startswith("cannot be fetched through the proxy http://proxy.invalid:3128: ")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_says_where_it_goes(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxying({}, credentials=CREDENTIALS) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("http://", "http://me:sesame@"))
        error = failure(f"{scheme}://{FAR}/")
    assert error.reason.startswith(f"cannot be fetched: the proxy {proxy.url} asks for a user and a password")
    assert error.reason.endswith("(407 Proxy Authentication Required)")
    assert error.advice == f"{scheme}_proxy=http://user:password@…"


@pytest.mark.parametrize(("scheme", "answer"), [("http", "502 Bad Gateway"), ("https", "403 Forbidden")])
def test_what_the_proxy_answers_is_said_with_its_name(
    scheme: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxying({}) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("http://", "http://me:sesame@"))
        error = failure(f"{scheme}://{FAR}/")
    assert error.reason == f"cannot be fetched through the proxy {proxy.url}: {answer}"
    assert error.advice == f"check {scheme}_proxy"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_no_http_proxy_is_said(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def greet(handler: Handler) -> None:
        handler.wfile.write(b"220 mail ready\r\n")

    with serving(greet) as other:
        monkeypatch.setenv(f"{scheme}_proxy", other.url)
        monkeypatch.setattr(Handler, "do_CONNECT", Handler.do_GET, raising=False)
        assert f"through the proxy {other.url}: " in failure(f"{scheme}://{FAR}/").reason


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_keeps_silent_is_left_at_the_limit(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        error = failure(f"{scheme}://{FAR}/", seconds=0.2)
    assert error.reason == f"took longer through the proxy {proxy} than the limit of 0.2 s"
    assert error.advice == f"ASR_URL_TIMEOUT_SECONDS sets the limit; check {scheme}_proxy"


def test_limits_hold_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.stopping.wait(0.02):
            handler.wfile.write(b"x")

    with serving(lambda handler: handler.reply(bytes(1000))) as server, proxying({FAR: place(server)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert refusal(f"http://{FAR}/", most_bytes=999) == "holds 1000 bytes, the limit is 999"
    with proxying(hosts := {}) as proxy, serving(drip) as server:
        hosts[FAR] = place(server)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert "took longer" in refusal(f"http://{FAR}/", seconds=0.5)
