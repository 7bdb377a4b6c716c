"""SIGHUP: the server reads keys and its certificate again, and nothing ends."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pki import ALICE, BOB, Pki, tls, until, write
from processes import log_of, port_of_its_own, processes, start
from serving import PATIENCE, TRANSCRIPTIONS, bearer
from websockets.sync.client import connect

from env.settings import Settings
from env.sources import PROJECT
from runtime.demo import Clip
from runtime.ops.process.control import start as start_process
from runtime.ops.process.status import status
from runtime.restart_policy import Policy


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with port_of_its_own(tmp_path) as made:
        yield made


def test_the_supervisor_hands_it_on(settings: Settings) -> None:
    start(settings)
    before = processes(settings)
    for count in (1, 2):
        os.kill(before[0].pid, signal.SIGHUP)
        until(lambda count=count: log_of(settings).count("hung up") == count)  # type: ignore[misc]
    assert processes(settings) == before
    assert status(settings).state == "ready"


def test_while_it_waits_to_start_a_server_again_it_ends_nothing(settings: Settings) -> None:
    start(settings, policy=Policy(pause=1.0))
    supervisor, server = processes(settings)
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: "starts again in" in log_of(settings))
    os.kill(supervisor.pid, signal.SIGHUP)
    until(lambda: status(settings).state == "ready")
    assert processes(settings)[0] == supervisor


def test_the_container_s_entry_point_does_not_end(tmp_path: Path) -> None:
    script = tmp_path / "serve"
    script.write_text("#!/bin/sh\nkill -HUP $$\necho serves\n", encoding="utf-8")
    script.chmod(0o755)
    ran = subprocess.run([PROJECT / "docker/bin/with-cann", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "serves\n")


def test_a_server_of_its_own_reads_again_and_drops_nobody(
    settings: Settings, tmp_path: Path, speech: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    pki, live, keys = Pki.create(), tmp_path / "live", tmp_path / "keys"
    trusting = pki.client
    old = pki.issue(live)
    write(keys, f"alice:{ALICE}", f"bob:{BOB}")
    files = {**tls(live), "keys_file": keys}
    for name, path in {**files, "device": "cpu", "out_dir": settings.out_dir}.items():
        monkeypatch.setenv(f"ASR_{name.upper()}", str(path))
    settings = settings.model_copy(update=files)

    def hang_up(_: str = "") -> None:
        for process in processes(settings):
            os.kill(process.pid, signal.SIGHUP)

    url = start_process(settings, on_stage=hang_up).url  # at every moment of its start
    before = processes(settings)
    goes_on = threading.Event()

    def upload() -> Iterator[bytes]:
        sound = speech[0].path.read_bytes()
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{speech[0].path.name}"\r\n\r\n'
        yield head.encode() + sound[:1000]
        assert goes_on.wait(PATIENCE)
        yield sound[1000:] + b"\r\n--x--\r\n"

    def ask() -> str:
        form = bearer(ALICE) | {"Content-Type": "multipart/form-data; boundary=x"}
        answer = httpx.post(url + TRANSCRIPTIONS, content=upload(), headers=form, verify=trusting, timeout=PATIENCE)
        return str(answer.json()["text"])

    address = f"{url.replace('https', 'wss', 1)}/v1/realtime"
    with ThreadPoolExecutor(1) as pool, connect(address, ssl=trusting, additional_headers=bearer(BOB)) as session:
        asked = pool.submit(ask)
        assert "session.created" in str(session.recv(PATIENCE))
        pki.issue(tmp_path / "other")
        (tmp_path / "other" / "tls.key").replace(live / "tls.key")
        keys.write_text("", encoding="utf-8")
        for count in (1, 2):  # the second time only because it is asked to
            hang_up()
            for words in ("tls.key is not the key of the certificate", "holds no key"):
                until(lambda words=words, count=count: log_of(settings).count(words) >= count)  # type: ignore[misc]
        assert pki.shown(settings.port) == old
        new = pki.issue(live)
        write(keys, f"bob:{BOB}")
        hang_up()
        until(lambda: pki.shown(settings.port) == new)
        models = f"{url}/v1/models"
        until(lambda: httpx.get(models, headers=bearer(ALICE), verify=trusting, timeout=PATIENCE).status_code == 401)
        goes_on.set()
        assert asked.result() == speech[0].text  # of a key that was right when it came
        session.send('{"type": "session.update", "session": {"type": "transcription"}}')
        assert "session.updated" in str(session.recv(PATIENCE))
    assert processes(settings) == before
