"""https: certificates that work, those that are refused before a model is loaded, and what asks the server itself."""

import gc
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from serving import PATIENCE, Served, served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.demo import Clip
from runtime.host import local_client
from runtime.host.tls import read_tls
from runtime.ops.deploy.compose import try_curl
from runtime.transcriber import Transcriber
from runtime.urls import url

Made = Callable[..., dict[str, Any]]  # settings


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs."""
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Made:
    """Makes a certificate and its key, and says which settings name them."""

    def make(name: str = "server", **options: Any) -> dict[str, Path]:
        made = authority.issue_cert("127.0.0.1", **options)
        certificate, key = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return {"tls_cert_file": certificate, "tls_key_file": key}

    return make


@pytest.fixture
def client(authority: trustme.CA) -> ssl.SSLContext:
    """Trusts nobody but the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def test_https(transcriber: Transcriber, speech: list[Clip], files: Made, client: ssl.SSLContext) -> None:
    with served(transcriber, **files()) as server:
        with (
            openai.DefaultHttpxClient(verify=client) as connected,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=connected, max_retries=0) as api,
        ):
            assert api.audio.transcriptions.create(file=speech[0].path, model="demo").text == speech[0].text
        with pytest.raises(InvalidStatus, match="403"):  # past the handshake, there is no such route
            connect(f"wss://127.0.0.1:{server.http_server.port}/v1/nothing", ssl=client)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{server.http_server.port}/health/live", timeout=PATIENCE)
        assert httpx.get(f"{server.url}/health/live", verify=client, timeout=PATIENCE).status_code == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # of those too old
def test_old_tls_is_refused(transcriber: Transcriber, files: Made, client: ssl.SSLContext) -> None:
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED

    def version(server: Served, newest: ssl.TLSVersion) -> str | None:
        client.maximum_version = newest
        with (
            socket.create_connection(("127.0.0.1", server.http_server.port), timeout=PATIENCE) as plain,
            client.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            return secure.version()

    with served(transcriber, **files()) as server:
        assert version(server, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with pytest.raises(ssl.SSLError, match=r"EOF|ALERT_PROTOCOL_VERSION"):
            version(server, ssl.TLSVersion.TLSv1_1)


def test_a_handshake_that_does_not_come_holds_up_nobody_and_leaves_nothing_behind(
    transcriber: Transcriber, files: Made, client: ssl.SSLContext
) -> None:
    with ExitStack() as until_the_end:
        with served(transcriber, **files()) as server:
            for _ in range(32):
                address = ("127.0.0.1", server.http_server.port)
                silent = until_the_end.enter_context(socket.create_connection(address, timeout=PATIENCE))
            silent.sendall(b"\x16\x03\x01")  # the beginning of a handshake
            assert httpx.get(f"{server.url}/health/ready", verify=client, timeout=PATIENCE).status_code == 200
        assert silent.recv(1) == b""
    gc.collect()  # what was not closed warns now


def test_clients_that_keep_their_connections_hold_up_no_stop(
    transcriber: Transcriber, files: Made, client: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    with httpx.Client(verify=client, timeout=PATIENCE) as keeping:
        with served(transcriber, **files()) as server:
            assert keeping.get(f"{server.url}/health/live").status_code == 200
        assert "graceful shutdown exceeded" not in caplog.text


def test_what_asks_the_server_itself_asks_over_https(transcriber: Transcriber, files: Made) -> None:
    made = files()
    with served(transcriber, **made) as server:
        settings = server.service.settings.model_copy(update={"port": server.http_server.port})
        assert url(settings) == server.url
        assert local_client.ask_health(url(settings)).status == "ready"
        environment = {"ASR_PORT": str(settings.port), "ASR_TLS_CERT_FILE": str(made["tls_cert_file"])}
        command = [sys.executable, "-I", "docker/healthcheck.py"]
        asked = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
        assert (asked.returncode, asked.stderr) == (0, "")
        assert '"ready"' in asked.stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_curl_command_that_is_shown_works(
    transcriber: Transcriber, files: Made, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(transcriber, **files()) as server:
        try_curl(server.service.settings.model_copy(update={"port": server.http_server.port}))
    assert '"text"' in capfd.readouterr().out


def refusal(settings: Settings, files: dict[str, Path | None]) -> str:
    """Why these files are not taken."""
    with pytest.raises(KitError) as caught:
        read_tls(settings.model_copy(update=files))
    assert caught.value.advice
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("tls_cert_file", "ASR_TLS_CERT_FILE: is not set, but"), ("tls_key_file", "ASR_TLS_KEY_FILE: is not set, but")],
)
def test_one_file_is_not_enough(settings: Settings, files: Made, name: str, words: str) -> None:
    assert words in refusal(settings, {**files(), name: None})


def test_a_file_that_cannot_be_read(settings: Settings, files: Made, tmp_path: Path) -> None:
    assert "ASR_TLS_KEY_FILE" in (missing := refusal(settings, {**files(), "tls_key_file": tmp_path / "none"}))
    assert "No such file" in missing
    assert "Is a directory" in refusal(settings, {**files(), "tls_cert_file": tmp_path})


def test_files_of_another_kind(settings: Settings, files: Made) -> None:
    made = files()
    certificate, key = made["tls_cert_file"], made["tls_key_file"]
    assert "server.key holds no certificate" in refusal(settings, {"tls_cert_file": key, "tls_key_file": key})
    swapped = refusal(settings, {"tls_cert_file": certificate, "tls_key_file": certificate})
    assert "ASR_TLS_KEY_FILE" in swapped
    assert "server.crt cannot be used" in swapped
    certificate.write_bytes(b"\0" * 64)
    assert "server.crt holds no certificate" in refusal(settings, dict(made))


def test_a_key_of_another_certificate(settings: Settings, files: Made) -> None:
    words = refusal(settings, {**files(), "tls_key_file": files("other")["tls_key_file"]})
    assert "other.key is not the key of the certificate" in words


def test_a_key_that_is_encrypted(settings: Settings, files: Made) -> None:
    made = files()
    key = load_pem_private_key(made["tls_key_file"].read_bytes(), password=None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    made["tls_key_file"].write_bytes(locked)
    assert "server.key is encrypted" in refusal(settings, dict(made))


@pytest.mark.parametrize(("days", "words"), [(-1, "certificate has expired"), (2, "certificate is not yet valid")])
def test_a_certificate_that_is_not_valid_now(settings: Settings, files: Made, days: int, words: str) -> None:
    day = datetime.now(timezone.utc) + timedelta(days=days)
    made = files(not_before=day - timedelta(days=1), not_after=day)
    assert words in refusal(settings, dict(made))
