"""From the first moment to the last: health while loading, drain, SIGTERM under load."""

import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import numpy as np
import pytest
from audio_files import sndfile
from serving import PATIENCE, SERVE, TRANSCRIPTIONS, decoded, held, lines, loading, served
from tree import bare_environment

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT
from runtime.audio import SAMPLE_RATE
from runtime.demo import Clip
from runtime.host.processes import ProcessHandle
from runtime.ops.process.state import DrainSummary
from runtime.server.app import create_app
from runtime.server.engine_manager import drain
from runtime.server.http import run_http_server
from runtime.server.state import ServerState
from runtime.transcriber import Request, Transcriber


def test_the_openapi_document_lists_each_phase_that_health_answers() -> None:
    document = create_app(ServerState()).openapi()
    answers = document["paths"]["/health/ready"]["get"]["responses"]
    schema = answers["200"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]["status"]["enum"]) == {"starting", "ready", "restarting", "draining"}


def test_health_answers_while_the_model_loads() -> None:
    with loading() as (_, port):
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/health/live").status_code == 200
        ready = httpx.get(f"{url}/health/ready")
        assert ready.status_code == 503
        assert ready.json() == {"status": "starting", "stage": "loading weights/model"}
        early = httpx.post(url + TRANSCRIPTIONS, files={"file": b"x"})
        assert (early.status_code, early.json()["error"]["code"]) == (503, "starting")
        assert "loading weights/model" in early.json()["error"]["message"]
        assert int(early.headers["Retry-After"]) > 0
        assert httpx.get(f"{url}/docs").status_code == 200


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with (
            pytest.raises(KitError, match=rf"127.0.0.1:{port}: cannot be listened on: .*ASR_PORT"),
            run_http_server(create_app(ServerState()), host="127.0.0.1", port=port),
        ):
            pass


def test_draining_refuses_what_is_new_and_answers_what_was_accepted(
    transcriber: Transcriber, speech: list[Clip]
) -> None:
    silent, engine = held(transcriber)
    with served(silent) as server, ThreadPoolExecutor(2) as pool:
        accepted = pool.submit(server.post, files={"file": speech[0].path.read_bytes()})
        decoding = engine.next()
        server.server_state.drain()
        drained = pool.submit(drain, server.server_state, server.service, server.http_server, seconds=PATIENCE)
        late = server.post(files={"file": b"x"})
        assert (late.status_code, late.json()["error"]["code"]) == (503, "draining")
        assert int(late.headers["Retry-After"]) > 0
        health = server.get("/health/ready")
        assert (health.status_code, health.json()["status"]) == (503, "draining")
        assert server.get("/health/live").status_code == 200
        assert not drained.done()
        decoding.tell(decoded("done in time"))
        assert accepted.result().json()["text"] == "done in time"
        assert drained.result() == DrainSummary(answered=1)


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
def test_what_is_not_done_in_time_is_told_so(
    transcriber: Transcriber, speech: list[Clip], fields: dict[str, str]
) -> None:
    silent, engine = held(transcriber)
    with served(silent) as server, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(server.post, files={"file": speech[0].path.read_bytes()}, data=fields)
        decoding = engine.next()
        server.server_state.drain()
        summary = drain(server.server_state, server.service, server.http_server, seconds=0)
        assert (summary.given_up, str(summary)) == (1, "0 requests answered, 1 given up")
        answer = accepted.result()
        assert decoding.cancelled.is_set()
    assert answer.status_code == (200 if fields else 503)
    assert '"code":"stopping"' in answer.text.replace(" ", "")


@pytest.fixture
def process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A server as a process of its own, which has just begun."""
    environment = bare_environment(ASR_PROFILE="cpu", ASR_DEVICE="cpu", ASR_OUT_DIR=str(tmp_path))
    command = ["sh", "-c", 'ulimit -S -n 256; exec "$0" -c "$1"', sys.executable, SERVE]
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def test_each_request_that_may_wait_can_hold_a_connection_and_a_file(
    process: "subprocess.Popen[str]", settings: Settings
) -> None:
    assert any("loading demo" in line for line in lines(process))
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    assert soft > 2 * settings.max_waiting or soft == hard


def test_sigterm_while_it_loads_ends_it_at_once(process: "subprocess.Popen[str]") -> None:
    assert any("loading demo" in line for line in lines(process))
    process.send_signal(signal.SIGTERM)
    rest = list(lines(process))
    assert "draining after SIGTERM" in rest[-2]
    assert "stopped, 0 requests answered" in rest[-1]
    assert not any(word in line for line in rest for word in ("ready on", "PORT"))
    assert process.wait(PATIENCE) == 0


def test_sigterm_under_load_loses_nothing(
    process: "subprocess.Popen[str]", transcriber: Transcriber, speech: list[Clip], tmp_path: Path
) -> None:
    server = ProcessHandle.of(process.pid)
    port = next(int(line.split()[1]) for line in lines(process) if line.startswith("PORT"))
    clip = transcriber.prepare(Request(speech[0].path)).audio.samples
    spoken = np.concatenate([clip, np.zeros(int(0.6 * SAMPLE_RATE), dtype=np.float32)])
    # Of two segments each: some are being answered when SIGTERM comes.
    recording = sndfile(np.tile(spoken, 16)[:, np.newaxis], SAMPLE_RATE, container="WAV", subtype="PCM_16")
    expected = transcriber.transcribe(recording).text
    clients = 8
    all_accepted = Barrier(clients + 1)

    def stream() -> str:
        with httpx.stream(
            "POST",
            f"http://127.0.0.1:{port}{TRANSCRIPTIONS}",
            files={"file": recording},
            data={"stream": "true"},
            timeout=PATIENCE,
        ) as answer:
            assert answer.status_code == 200
            all_accepted.wait(PATIENCE)
            return answer.read().decode()

    with ThreadPoolExecutor(clients) as pool:
        streams = [pool.submit(stream) for _ in range(clients)]
        all_accepted.wait(PATIENCE)
        process.send_signal(signal.SIGTERM)
        answers: list[Any] = [future.result() for future in streams]
    for answer in answers:
        assert "transcript.text.done" in answer
        assert f'"text": "{expected}"' in answer
    # Those that ended before SIGTERM came are not counted, which a quick machine may have done with one or two.
    ended = re.search(r"stopped, (\d+) requests? answered", list(lines(process))[-1])
    assert ended
    assert process.wait(PATIENCE) == 0
    answered = int(ended[1])
    assert 0 < answered <= clients
    assert DrainSummary.read(tmp_path / "run" / "server-0.farewell.json", server) == DrainSummary(answered, 0)
