"""What /metrics tells: while the model loads, of good and of failed requests, after a crash, of sessions."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_text import Samples, read, value
from pydantic import SecretStr
from serving import PATIENCE, TRANSCRIPTIONS, HeldEngine, Served, bearer, hang_up_after_upload, held, served
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from env.settings import Settings
from runtime.demo import Clip
from runtime.model.device import Device, Memory
from runtime.server.app import create_app
from runtime.server.http import run_http_server
from runtime.server.metrics import Metrics
from runtime.server.middleware import AccessLogMiddleware
from runtime.server.service import Service
from runtime.server.state import ServerState
from runtime.transcriber import Transcriber, open_transcriber


def codes(samples: Samples, route: str) -> dict[str, float]:
    """The number of requests by code."""
    found = ((dict(labels), count) for (name, labels), count in samples.items() if name == "asr_requests_total")
    return {labels["code"]: count for labels, count in found if labels["route"] == route}


def test_metrics_from_loading_to_the_next_engine(settings: Settings, speech: list[Clip]) -> None:
    server_state = ServerState()
    app = create_app(server_state)
    with run_http_server(app, host="127.0.0.1", port=0) as http_server:
        url = f"http://127.0.0.1:{http_server.port}"
        loading = read(url)
        assert value(loading, "asr_ready") == 0
        assert value(loading, "asr_requests_held") == 0
        assert not [name for name, _ in loading if name in ("asr_info", "asr_device_memory_bytes")]
        with open_transcriber(settings, observers=[app.state.metrics.engine]) as transcriber:
            service = Service(transcriber)
            server_state.ready(service)
            clip = speech[0].path.read_bytes()
            heard = httpx.post(
                url + TRANSCRIPTIONS, files={"file": clip}, data={"response_format": "verbose_json"}, timeout=PATIENCE
            ).json()
            httpx.post(url + TRANSCRIPTIONS, files={"file": clip}, data={"stream": "true"}, timeout=PATIENCE)
            assert server_state.wait_idle(PATIENCE)
            working = read(url)
            server_state.engine_failed("the device is lost")
            crashed = read(url)
            server_state.restart_engine()
            server_state.ready(service)
            again = read(url)
            service.close()
    tokens = heard["tokens"]
    assert codes(working, TRANSCRIPTIONS) == {"200": 2}
    assert value(working, "asr_ready") == 1
    assert value(working, "asr_audio_seconds_total") == pytest.approx(2 * heard["duration"], abs=0.01)
    assert value(working, "asr_tokens_total") == 2 * tokens
    for name in ("asr_rtf", "asr_first_token_seconds", "asr_queue_wait_seconds", "asr_prefill_seconds"):
        assert value(working, f"{name}_count") == 2
        assert value(working, f"{name}_bucket", le="+Inf") == 2
        assert 0 < (value(working, f"{name}_sum") or 0) < PATIENCE
    assert value(working, "asr_batch_utterances_bucket", le="1.0") == 2
    assert value(working, "asr_decode_step_seconds_count") == 2 * tokens  # a step for the end token, none for the first
    assert value(working, "asr_request_seconds_count", route=TRANSCRIPTIONS) == 2
    for name in ("asr_queue_utterances", "asr_decoding_utterances", "asr_realtime_sessions", "asr_requests_held"):
        assert value(working, name) == 0
    assert (value(working, "asr_device_memory_bytes", kind="used") or 0) > 1 << 20
    (info,) = [dict(labels) for name, labels in working if name == "asr_info"]
    assert (info["engine"], info["model"], info["device"]) == ("transformers", "demo", "cpu")
    assert (value(working, "process_resident_memory_bytes") or 0) > 1 << 20
    assert value(crashed, "asr_ready") == 0
    assert [value(found, "asr_engine_restarts_total") for found in (working, crashed, again)] == [0, 0, 1]
    assert [value(found, "asr_tokens_total") for found in (crashed, again)] == [2 * tokens] * 2


def test_the_form_is_the_one_that_is_accepted(server: Served) -> None:
    answer = server.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = openmetrics(answer.text)  # type: ignore[no-untyped-call]
    assert {"asr_requests", "asr_rtf", "asr"} <= {family.name for family in families}
    assert server.get("/metrics").headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_made_up_paths_and_refused_callers_make_no_metrics_of_their_own(transcriber: Transcriber) -> None:
    with served(transcriber, api_key=SecretStr("sk-one")) as server:
        key = bearer("sk-one")
        for number in range(5):
            server.get(f"/no/such/{number}?secret={number}")
            server.get(f"/v1/models/{number}", headers=key)
            server.get(f"/v1/models/{number}")
            server.get("/v1/chat/completions", headers=key)
        found = read(server.url)
    assert codes(found, "other") == {"404": 5}
    assert codes(found, "/v1/models/{name}") == {"404": 5, "401": 5}
    assert codes(found, "/v1/chat/completions") == {"405": 5}
    assert len({dict(labels)["route"] for name, labels in found if name == "asr_requests_total"}) == 3


def test_the_room_on_disk_is_told_where_it_can_be(
    transcriber: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free(out: Path) -> dict[str, float]:
        with served(transcriber, out_dir=str(out)) as server:
            found = read(server.url)
        return {dict(labels)["directory"]: count for (name, labels), count in found.items() if "disk" in name}

    monkeypatch.setattr("tempfile.tempdir", "/dev/shm")  # another file system than that of tmp_path
    told = free(tmp_path)
    assert told["out"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert told["spool"] == pytest.approx(shutil.disk_usage("/dev/shm").free, rel=0.2)
    assert set(free(tmp_path / "missing")) == {"spool"}


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_failure_counts_also_after_the_head_of_the_answer(
    transcriber: Transcriber, speech: list[Clip], stream: str
) -> None:
    silent, engine = held(transcriber)
    with served(silent) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.post, files={"file": speech[0].path.read_bytes()}, data={"stream": stream})
        engine.next().tell(RuntimeError("NPU error 507011"))
        assert waiting.result().status_code == (200 if stream == "true" else 500)
        assert server.server_state.wait_idle(PATIENCE)
        assert codes(read(server.url), TRANSCRIPTIONS) == {"500": 1}


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_client_that_hangs_up_counts_as_499(transcriber: Transcriber, speech: list[Clip], stream: str) -> None:
    silent, engine = held(transcriber)
    with served(silent) as server:
        with hang_up_after_upload(server, speech[0], stream=stream):
            decoding = engine.next()
            decoding.tell(1)
        assert decoding.cancelled.wait(PATIENCE)
        assert server.server_state.wait_idle(PATIENCE)
        found = read(server.url)
    assert codes(found, TRANSCRIPTIONS) == {"499": 1}
    assert value(found, "asr_first_token_seconds_count") == 1
    assert value(found, "asr_rtf_count") == 0


class StuckDevice(Device):
    """An NPU that answers once, and then never until it is let go."""

    answered, stuck, free = threading.Event(), threading.Event(), threading.Event()

    def memory(self) -> Memory:
        if self.answered.is_set():
            assert not self.stuck.is_set(), "it is asked again"
            self.stuck.set()
            self.free.wait(PATIENCE)
        self.answered.set()
        return Memory(1, 2, 3, 4)


def test_a_device_that_no_longer_answers_keeps_one_scrape_waiting(transcriber: Transcriber) -> None:
    engine = HeldEngine(transcriber.engine)
    engine.device = StuckDevice("cpu")
    with served(replace(transcriber, engine=engine)) as server, ThreadPoolExecutor(1) as pool:
        read(server.url)
        waiting = pool.submit(read, server.url)
        assert StuckDevice.stuck.wait(PATIENCE)
        found = read(server.url)
        StuckDevice.free.set()
        waiting.result()
    assert [value(found, "asr_device_memory_bytes", kind=kind) for kind in ("used", "reserved", "total")] == [1, 2, 4]


async def endless(_: Scope, __: Receive, send: Send) -> None:
    """An answer without an end, for a client that reads all the time."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        body = {"type": "http.response.body", "body": b"." * (1 << 20), "more_body": True}
        await asyncio.wait_for(send(body), 0.1)


@contextmanager
def with_access_log(app: ASGIApp) -> Iterator[tuple[int, Metrics, threading.Event]]:
    """An application behind the access log: its port, its metrics, and the end of the first request."""
    metrics, ended = Metrics(), threading.Event()
    access_log = AccessLogMiddleware(app, metrics=metrics, routes=[])

    async def follow(scope: Scope, receive: Receive, send: Send) -> None:
        await access_log(scope, receive, send)
        ended.set()

    with run_http_server(follow, host="127.0.0.1", port=0) as http_server:
        yield http_server.port, metrics, ended


def test_a_client_that_does_not_read_counts_as_499() -> None:
    with (
        with_access_log(endless) as (port, metrics, ended),
        httpx.stream("GET", f"http://127.0.0.1:{port}", timeout=PATIENCE) as answer,
    ):
        assert ended.wait(PATIENCE)
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    assert metrics.registry.get_sample_value("asr_requests_total", {"route": "other", "code": "499"}) == 1


async def session(scope: Scope, receive: Receive, send: Send) -> None:
    """Does what its address says: /accept/CODE closes with that code, /wait waits for the client's."""
    socket = WebSocket(scope, receive, send)
    _, kind, *code = scope["path"].split("/")
    if kind == "refuse":
        await socket.close()
        return
    await socket.accept()
    if kind == "crash":
        raise ValueError(kind)
    if kind == "close":
        await socket.close(int(code[0]))
        return
    await socket.receive_text()
    await socket.receive()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/close/1000", "101"),
        ("/close/1001", "101"),
        ("/close/1009", "413"),
        ("/close/1011", "500"),
        ("/close/1013", "503"),
        ("/close/3000", "101"),
        ("/crash", "500"),
        ("/refuse", "403"),
        ("/wait", "101"),
    ],
)
def test_how_a_session_was_closed_is_its_code(path: str, code: str) -> None:
    with with_access_log(session) as (port, metrics, ended):
        try:
            with connect(f"ws://127.0.0.1:{port}{path}") as client:
                assert client.response
                assert client.response.headers["x-request-id"]
                if path == "/wait":
                    client.send("go on")
                else:
                    client.recv(PATIENCE)
        except (ConnectionClosed, InvalidStatus):
            pass
        assert ended.wait(PATIENCE)
    assert metrics.registry.get_sample_value("asr_requests_total", {"route": "other", "code": code}) == 1
