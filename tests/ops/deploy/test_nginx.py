"""The server behind a real nginx: with the configuration that the kit brings, and with those that people have."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from browser import opened
from documents import commands, outline
from engine import free_port
from fronting import until
from realtime_client import TRANSCRIPTION, RealtimeClient, spoken
from serving import PATIENCE, TRANSCRIPTIONS, Served, decoded, held, served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from env.field import variable
from env.settings import Settings
from env.sources import PROJECT
from runtime.demo import Clip
from runtime.transcriber import Transcriber

FOLDER = PROJECT / "docker" / "nginx"
CONFIGURATION = (FOLDER / "qwen3-asr.conf").read_text(encoding="utf-8")
READMES = {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")}
# What a package's nginx.conf has around it, in one process and below a folder of the test's own.
MAIN = """daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""
# The usual configurations: nothing but proxy_pass, and the headers that most guides have.
BARE = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{behind}; }} }}"
USUAL = """server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://127.0.0.1:{behind};
    proxy_set_header Host $host;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
}} }}"""
FORWARDED = USUAL.replace("Host $host;", "Host $host;\n    proxy_set_header X-Forwarded-Proto $scheme;")
UPGRADED_ALONE = USUAL.replace("    proxy_set_header Host $host;\n", "")
SPEAKING = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

Front = Callable[[str], AbstractContextManager[int]]


@pytest.fixture
def front(tmp_path: Path) -> Front:
    """Runs nginx with the text of a site, and gives the port on which it answers, before `server`."""
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if not binary:
        pytest.skip("no nginx here: apt-get install nginx-light")

    @contextmanager
    def run(site: str) -> Iterator[int]:
        port = free_port()
        (tmp_path / "site.conf").write_text(site.replace("{port}", str(port)), encoding="utf-8")
        (tmp_path / "nginx.conf").write_text(MAIN.format(folder=tmp_path), encoding="utf-8")
        errors = tmp_path / "error.log"
        command = [binary, "-p", str(tmp_path), "-e", str(errors), "-c", str(tmp_path / "nginx.conf")]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                until(lambda: answers(port) or process.poll() is not None)
                assert process.poll() is None, process.communicate()[1]
                yield port
            finally:
                process.terminate()
                process.wait(PATIENCE)
        assert errors.read_text(encoding="utf-8") == ""

    return run


def answers(port: int) -> bool:
    """Whether something listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def has_ipv6() -> bool:
    """Whether this machine can be called at ::1."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def behind(text: str, server: Served) -> str:
    """A site for this server; the port of its own stays open."""
    return text.format(port="{port}", behind=server.http_server.port)


@pytest.fixture
def authority() -> trustme.CA:
    """Who signs nginx's certificate."""
    return trustme.CA()


@pytest.fixture
def adapted(tmp_path: Path, authority: trustme.CA) -> Callable[[Served], str]:
    """The kit's configuration, with what its README tells to adapt."""
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(tmp_path / "asr.crt")
    made.private_key_pem.write_to_path(tmp_path / "asr.key")

    def adapt(server: Served) -> str:
        changes = {
            "listen 443 ssl;": "listen 127.0.0.1:{port} ssl;",
            "listen [::]:443 ssl;": "listen [::1]:{port} ssl;" if has_ipv6() else "",
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{server.http_server.port};",
            "/etc/nginx/tls/asr.crt": f"{tmp_path}/asr.crt",
            "/etc/nginx/tls/asr.key": f"{tmp_path}/asr.key",
        }
        text = CONFIGURATION
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return text

    return adapt


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    """Trusts that certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_an_upload_and_a_large_one(
    server: Served, speech: list[Clip], front: Front, adapted: Callable[[Served], str], trust: ssl.SSLContext
) -> None:
    with front(adapted(server)) as port, httpx.Client(verify=trust, timeout=PATIENCE) as client:
        url = f"https://127.0.0.1:{port}{TRANSCRIPTIONS}"
        heard = client.post(url, files={"file": speech[0].path.read_bytes()})
        assert heard.json()["text"] == speech[0].text
        large = client.post(url, files={"file": bytes(8 << 20)})  # nginx itself would take 1 MiB
        assert (large.status_code, large.json()["error"]["code"]) == (400, "invalid_audio")


def test_a_stream_comes_piece_by_piece(
    transcriber: Transcriber, speech: list[Clip], front: Front, adapted: Callable[[Served], str], trust: ssl.SSLContext
) -> None:
    silent, engine = held(transcriber)
    with (
        served(silent) as server,
        front(adapted(server)) as port,
        httpx.Client(verify=trust, timeout=PATIENCE) as client,
    ):
        request = {"files": {"file": speech[0].path.read_bytes()}, "data": {"stream": "true"}}
        with client.stream("POST", f"https://127.0.0.1:{port}{TRANSCRIPTIONS}", **request) as answer:  # type: ignore[arg-type]
            decoding = engine.next()
            events = answer.iter_lines()
            for token in transcriber.loaded.processor.tokenizer.encode("language English<asr_text>station train"):
                decoding.tell(token)
            assert "station" in json.loads(next(events).removeprefix("data: "))["delta"]  # while it is being decoded
            decoding.tell(decoded("station train"))
            assert "transcript.text.done" in list(events)[-2]


def test_a_realtime_session(
    server: Served,
    transcriber: Transcriber,
    speech: list[Clip],
    front: Front,
    adapted: Callable[[Served], str],
    trust: ssl.SSLContext,
) -> None:
    with front(adapted(server)) as port:
        page = Origin(f"https://127.0.0.1:{port}")
        with connect(f"wss://127.0.0.1:{port}/v1/realtime", ssl=trust, proxy=None, origin=page) as connection:
            talk = RealtimeClient(connection)
            talk.set(format={"rate": 16000}, turn_detection=None)
            talk.append(spoken(transcriber, speech[:1]))
            talk.send("input_audio_buffer.commit")
            assert talk.wait(f"{TRANSCRIPTION}.completed")["transcript"] == speech[0].text


def test_the_page_and_its_microphone(
    server: Served, speech: list[Clip], front: Front, adapted: Callable[[Served], str]
) -> None:
    """Words come while one speaks, and when one has spoken; whether they are the right ones is up to test_page.py."""
    heard = f"--use-file-for-fake-audio-capture={speech[0].path}"  # again and again
    with front(adapted(server)) as port, opened(*SPEAKING, heard, "--ignore-certificate-errors") as page:
        page.open(f"https://127.0.0.1:{port}")
        page.find("#record").click()
        page.until("document.querySelector('#live').textContent")
        page.reads("#status", "Recording")
        page.find("#stop").click()
        assert page.done()
        assert page.complaints() == []


@pytest.mark.parametrize(
    ("site", "status", "code", "words"),
    [
        (BARE, 426, "upgrade_required", "forward Upgrade and Connection"),
        (UPGRADED_ALONE, 403, "origin", "proxy_set_header Host $http_host"),
        (USUAL, 403, "origin", "proxy_set_header Host $http_host"),
    ],
)
def test_a_configuration_that_lacks_something_leads_to_the_cause(
    server: Served, front: Front, site: str, status: int, code: str, words: str
) -> None:
    with front(behind(site, server)) as port:
        origin = Origin(f"http://127.0.0.1:{port}") if status == 403 else None
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription", proxy=None, origin=origin)
        answer = refused.value.response
        error = json.loads(answer.body or b"")["error"]
        assert (answer.status_code, error["code"]) == (status, code)
        assert words in error["message"]


@pytest.mark.parametrize(("site", "words"), [(BARE, "asked as 127.0.0.1:"), (UPGRADED_ALONE, "$http_host")])
def test_the_page_shows_the_cause(server: Served, front: Front, site: str, words: str) -> None:
    with front(behind(site, server)) as port, opened(*SPEAKING) as page:
        page.open(f"http://127.0.0.1:{port}")
        page.find("#record").click()
        page.until("!document.querySelector('#error').hidden")
        assert page.text("#error strong") == "There is no text while you speak"
        assert words in page.text("#error p")
        page.reads("#status", "Recording; the text comes when you stop")
        page.until("document.querySelector('#elapsed').textContent >= '0:01'")
        page.find("#stop").click()
        page.until("document.querySelector('#error').hidden")


def test_host_without_a_port_is_enough_where_the_proxy_tells_of_itself(server: Served, front: Front) -> None:
    with front(behind(FORWARDED, server)) as port:
        page = Origin(f"http://127.0.0.1:{port}")
        with connect(f"ws://127.0.0.1:{port}/v1/realtime/", proxy=None, origin=page) as connection:
            assert RealtimeClient(connection).next()["type"] == "session.created"
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{port}/v1/realtime", proxy=None, origin=Origin("http://evil.example"))


def test_what_nginx_allows_is_more_than_what_the_server_does() -> None:
    (size,) = re.findall(r"client_max_body_size (\d+)m;", CONFIGURATION)
    assert int(size) > Settings.model_fields["upload_max_mib"].default
    for name in ("read", "send"):
        (seconds,) = re.findall(rf"proxy_{name}_timeout (\d+)s;", CONFIGURATION)
        assert int(seconds) > Settings.model_fields["request_timeout_seconds"].default


def test_both_readmes_say_the_same_of_what_there_is() -> None:
    english, chinese = READMES.values()
    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)
    for text in (english, chinese):
        assert set(re.findall(r"ASR_\w+", text)) <= {variable(name) for name in Settings.model_fields}
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (FOLDER / link).is_file(), link
        adapted = text.partition("| --- |")[2].partition("\n\n")[0]
        for cell in re.findall(r"^\| (`[^|]+`) \|", adapted, re.MULTILINE):
            for directive in re.findall(r"`([^`]+)`", cell):
                assert directive in CONFIGURATION, directive
