"""The doctor on the host that it runs on: commands found on PATH, ports, servers."""

import contextlib
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from pathlib import Path

import fake_hosts
import pytest
import trustme
from fake_hosts import case, free_port, path, script
from hub.copies import put, settings

from env.sources import PROJECT, load_settings
from runtime.host.probe import Host
from runtime.ops.doctor import docker, examine, examine_host, machine, npu
from runtime.ops.doctor import weights as model
from runtime.ops.doctor.findings import CheckResult
from runtime.ops.doctor.weights import reach

__all__ = ["path"]  # a fixture

SMI = fake_hosts.SAMPLES / "910B4-x8-25.5.1.txt"


def told(outcome: CheckResult | None) -> CheckResult:
    assert outcome is not None
    return outcome


def test_npu_smi_is_found_on_path(path: Path) -> None:
    script(path, "npu-smi", f'[ "$1" = info ] && cat {SMI}')
    assert npu.smi(case()) == CheckResult("pass", f"25.5.1 in {path}/npu-smi: 8 × 910B4")


def test_npu_smi_that_fails(path: Path) -> None:
    script(path, "npu-smi", "echo dcmi module initialize failed. ret is -8005; exit 1")
    assert "the driver does not answer" in npu.smi(case()).evidence


def test_docker_and_compose_on_path(path: Path) -> None:
    script(path, "docker", f"[ \"$1\" = info ] && echo '{fake_hosts.info()}'")
    script(path, "docker-compose", "echo 1.29.2")
    assert docker.docker_engine(case()).evidence == "24.0.7, data in /var/lib/docker"
    assert docker.compose(case()).evidence == "docker-compose 1.29.2"
    script(path, "docker", '[ "$1" = compose ] && echo v2.3.3')
    assert docker.compose(case()).evidence == "docker compose v2.3.3"
    assert docker.containers(case().host) == []


def test_docker_that_is_not_for_this_user(path: Path) -> None:
    script(path, "docker", "echo permission denied while trying to connect to the Docker daemon socket >&2; exit 1")
    assert "usermod -aG docker" in docker.docker_engine(case(ASR_PROFILE="atlas-800-a2")).fix


def test_this_machine_passes_with_the_demo_model() -> None:
    findings = {finding.title: finding for finding in examine(load_settings({"ASR_PORT": free_port()}), quick=True)}
    for title in ("Architecture", "System", "Settings", "Weights"):
        assert findings[title].status == "pass", findings[title]
    assert os.uname().machine == findings["Architecture"].evidence
    assert os.uname().release in findings["System"].evidence


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_port_that_is_taken_and_by_whom(address: str, path: Path) -> None:
    script(path, "docker", "exit 1")
    both = ":" in address
    if both and not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server((address, 0), family=family, dualstack_ipv6=both) as listener:
        found = machine.port(case(ASR_PORT=str(listener.getsockname()[1])))
    assert found.status == "fail"
    assert f"pid {os.getpid()} (" in found.evidence


def test_a_port_that_is_free(path: Path) -> None:
    script(path, "docker", "exit 1")
    with socket.create_server(("127.0.0.2", 0)) as listener:  # another address of the same host
        number = str(listener.getsockname()[1])
        assert machine.port(case(ASR_PORT=number)) == CheckResult("pass", f"{number} is free")
        assert machine.port(case(ASR_PORT=number, ASR_HOST="0.0.0.0")).status == "fail"


def test_a_connection_is_no_listener(path: Path) -> None:
    script(path, "docker", "exit 1")
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        assert machine.port(case(ASR_PORT=str(client.getsockname()[1]))).status == "pass"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/") or HTTPStatus.OK))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def serving(certificate: Path | None = None) -> Iterator[str]:
    """The address of a server, over TLS if there is a certificate."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("status", [200, 401, 403, 404])
def test_a_hub_that_answers(status: int) -> None:
    with serving() as url:
        assert reach(f"{url}/{status}").output == str(status)


def test_a_hub_that_is_out_of_order() -> None:
    with serving() as url:
        assert reach(f"{url}/503").fault == "HTTP: answers 503 Service Unavailable"


def test_a_hub_that_refuses_connections() -> None:
    assert reach(f"http://127.0.0.1:{free_port()}").fault == "connection: 127.0.0.1: Connection refused"


def test_a_hub_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = reach(f"http://127.0.0.1:{listener.getsockname()[1]}", seconds=0.3)
    assert found.fault == "connection: no answer from 127.0.0.1 in time"


def test_a_hub_that_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        assert reach(url).fault
        thread.join()


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fault = reach("https://hub.example").fault
    assert fault == "DNS: the name of hub.example cannot be resolved: Name or service not known"


def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60))
    try:
        fault = reach("https://hub.example", seconds=0.3).fault
    finally:
        over.set()
    assert fault == "DNS: the name of hub.example cannot be resolved: no answer of the name server, for 0.3 s"


def test_a_server_without_tls() -> None:
    with serving() as url:
        assert reach(url.replace("http:", "https:")).fault.startswith("TLS: ")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate that nobody signed, with its key."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("there is no openssl to make a certificate with")
    file = tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key"), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "key").read_bytes())
    return file


def test_the_servers_own_certificate(certificate: Path) -> None:
    files = {"ASR_TLS_CERT_FILE": str(certificate), "ASR_TLS_KEY_FILE": str(certificate.parent / "key")}
    assert machine.certificate(case()) is None
    found = told(machine.certificate(case(**files)))
    assert (found.status, str(certificate) in found.evidence) == ("pass", True)
    half = told(machine.certificate(case(ASR_TLS_CERT_FILE=str(certificate))))
    assert half.status == "fail"
    assert "ASR_TLS_KEY_FILE: is not set" in half.evidence


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [
        (90, "pass", "90 days more"),
        (29, "warn", "29 days more"),
        (6, "fail", "6 days more"),
        (-1, "fail", "expired on "),
    ],
)
def test_a_certificate_that_expires(tmp_path: Path, days: int, status: str, words: str) -> None:
    end = datetime.now(timezone.utc) + timedelta(days=days, minutes=30)
    made = trustme.CA().issue_cert("asr.example", not_before=end - timedelta(days=100), not_after=end)
    certificate, key = tmp_path / "crt", tmp_path / "key"
    made.cert_chain_pems[0].write_to_path(str(certificate))
    made.private_key_pem.write_to_path(str(key))
    files = {"ASR_TLS_CERT_FILE": str(certificate), "ASR_TLS_KEY_FILE": str(key)}
    found = told(machine.certificate_expiry(case(**files)))
    assert found.status == status
    assert words in found.evidence
    assert f"{end:%Y-%m-%d}" in found.evidence
    assert bool(found.fix) == (status != "pass")
    key.unlink()  # which the check of the certificate tells
    assert machine.certificate_expiry(case(**files)) is None
    assert machine.certificate_expiry(case()) is None


def test_a_certificate_that_nobody_signed(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(certificate) as url:
        assert "TLS: " in reach(url).fault
        assert "self-signed certificate" in reach(url).fault.replace("self signed", "self-signed")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert reach(url).output == "200"


def test_a_proxy_that_is_away_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("http_proxy", f"http://user:pass-word@{proxy}")
    fault = reach("http://hub.example").fault
    assert fault == f"connection: the proxy http://{proxy}: Connection refused"


def test_the_hub_is_asked_where_weights_are_wanted(tmp_path: Path) -> None:
    variables = {"ASR_PROFILE": "atlas-800-a2", "ASR_MODEL": str(tmp_path / "Qwen3-ASR-1.7B")}
    with serving() as url:
        answered = told(model.hub(case(**variables, ASR_HUB_ENDPOINT=f"{url}/200")))
        refused = told(model.hub(case(**variables, ASR_HUB_ENDPOINT=f"{url}/503")))
    assert (answered.status, answered.evidence) == ("pass", f"modelscope at {url}/200 answers 200")
    assert refused.status == "fail"  # the weights are not there
    unset = told(model.hub(case(**variables, ASR_HUB="git-lfs")))
    assert (unset.status, unset.fix) == ("fail", "export ASR_HUB_ENDPOINT=…")
    assert model.hub(case()) is None


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    found = model.weights(case(ASR_MODEL=str(tmp_path / "none")))
    assert found.status == "fail"
    assert "no such directory" in found.evidence
    assert "invoke fetch-weights" in found.fix


def test_a_slow_check_says_what_it_waits_for(tmp_path: Path, path: Path) -> None:
    """npu-smi answers once the line was read."""
    os.mkfifo(tmp_path / "go")
    script(path, "npu-smi", f"read line < {tmp_path}/go; cat {SMI}")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ASR_")}
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", "doctor", "--quick", "--json"],
        cwd=PROJECT,
        env={**environment, "ASR_PROFILE": "atlas-800-a2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as doctor:
        assert doctor.stderr
        assert doctor.stdout
        lines: list[str] = []
        for line in doctor.stderr:
            lines.append(line)
            if "npu-smi" in line:
                break
        assert lines[-1] == "Examining: ASR-D20 NPU: npu-smi info, 20 s at most\n"
        (tmp_path / "go").write_text("go\n", encoding="utf-8")
        findings = {finding["code"]: finding for finding in json.load(doctor.stdout)["findings"]}
    assert "8 × 910B4" in findings["ASR-D26"]["evidence"]


def test_checksums_say_how_far_they_are(tmp_path: Path) -> None:
    directory, heard = put(tmp_path), list[str]()
    findings = examine_host(settings(tmp_path), Host(on_wait=heard.append))
    assert any(re.fullmatch(rf"ASR-D\d\d \w+: checksums of {directory}, 100 %", line) for line in heard)
    (weights,) = [finding for finding in findings if finding.code == "ASR-D30"]
    assert weights.status == "pass"
