"""Admin calls: status, cache, drain and resume, log level; and the tasks that make them."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import SecretStr
from serving import Served, decoded, held, loading, served

from env.errors import KitError
from env.settings import Settings
from runtime.demo import Clip
from runtime.ops import cache
from runtime.ops.process import status as present
from runtime.ops.process.status import status
from runtime.transcriber import Transcriber

KEY = "operators-own-key"


def settings_of(server: Served, **changes: object) -> Settings:
    """Those of an operator on the same machine."""
    return server.service.settings.model_copy(update={"port": server.http_server.port, **changes})


def test_what_a_server_tells_of_itself(server: Served) -> None:
    told = server.get("/admin/status").json()
    assert (told["status"], told["accepted"], told["engine_restarts"]) == ("ready", 0, 0)
    assert told["uptime_seconds"] >= 0
    assert told["device"]["name"] == "cpu"
    assert told["device"]["memory"]["used"] > 1 << 20
    assert told["queue"]["requests"] == 0
    assert told["queue"]["engine"]["waiting"] == 0


def test_admin_calls_before_there_is_a_model() -> None:
    with loading() as (_, port):
        url = f"http://127.0.0.1:{port}/admin"
        told = httpx.get(f"{url}/status").json()
        assert (told["status"], told["stage"], told["device"]) == ("starting", "loading weights/model", None)
        answer = httpx.post(f"{url}/cache")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "starting")


def test_drain_and_resume(transcriber: Transcriber, speech: list[Clip]) -> None:
    audio = {"file": speech[0].path.read_bytes()}
    silent, engine = held(transcriber)
    with served(silent) as server, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(server.post, files=audio)
        decoding = engine.next()
        told = server.post("/admin/drain").json()
        assert told == {"status": "draining", "stage": "draining after an admin call, 1 request to be answered"}
        ready = server.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, told)
        late = server.post(files=audio)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "draining")
        assert server.get("/admin/status").json()["accepted"] == 1
        decoding.tell(decoded("done in time"))
        assert accepted.result().json()["text"] == "done in time"
        assert server.post("/admin/cache").status_code == 200
        assert server.post("/admin/resume").json()["status"] == "ready"
        assert server.get("/health/ready").status_code == 200
        again = pool.submit(server.post, files=audio)
        engine.next().tell(decoded("and again"))
        assert again.result().json()["text"] == "and again"
        server.server_state.stop("SIGTERM", at_once=False)
        refused = server.post("/admin/resume")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "stopping")
        assert server.get("/health/ready").json()["status"] == "draining"


@pytest.fixture
def kit_logger() -> Iterator[logging.Logger]:
    """The kit's logger; its level is as before in the end, and the root's too."""
    found, root = logging.getLogger("runtime"), logging.getLogger()
    before = found.level, root.level
    yield found
    found.setLevel(before[0])
    root.setLevel(before[1])


def test_the_log_level(server: Served, kit_logger: logging.Logger) -> None:
    def put(**options: object) -> httpx.Response:
        return httpx.put(f"{server.url}/admin/log-level", **options)  # type: ignore[arg-type]

    for level, number in (("debug", logging.DEBUG), ("warning", logging.WARNING)):
        answer = put(json={"level": level})
        assert (answer.status_code, answer.json()) == (200, {"level": level})
        assert kit_logger.level == number
    for body in ({"level": "loud"}, {"level": None}, {}, {"level": "info", "more": 1}, ["info"]):
        answer = put(json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "level")
    for broken in (b"{", b"", b"\xff", b"[" * 4096, b'{"level": "info", "level": "debug"}'):
        answer = put(content=broken)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")
    for large in (b"[" * 4097, iter([b"[" * 4000] * 2)):
        answer = put(content=large)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert kit_logger.level == logging.WARNING


def test_clear_cache_asks_the_server(server: Served) -> None:
    port = server.http_server.port
    told = cache.clear_device(settings_of(server), dry_run=True)
    assert told.startswith("cpu: 0.0 MiB would be freed; ")
    assert told.endswith(f"(the server on port {port})")
    assert cache.clear_device(settings_of(server), dry_run=False).startswith("cpu: 0.0 MiB freed; ")


def test_operators_with_a_key(transcriber: Transcriber) -> None:
    with served(transcriber, admin_key=SecretStr(KEY)) as server:
        assert server.get("/admin/status").status_code == 401
        assert "would be freed" in cache.clear_device(settings_of(server), dry_run=True)
        found = status(settings_of(server))
        assert (found.state, found.exit_code) == ("ready", 0)
        assert found.document()["device"]["name"] == "cpu"
        assert found.document()["engine_restarts"] == 0
        words = present.format_status(found)
        assert "device   cpu (" in words
        assert "queue    0 requests; utterances: 0 waiting, 0 being decoded" in words
        assert "which `invoke start` did not start" in words
        for stranger in (None, SecretStr("another-key")):
            with pytest.raises(KitError, match="ASR_ADMIN_KEY") as refused:
                cache.clear_device(settings_of(server, admin_key=stranger), dry_run=False)
            assert KEY not in str(refused.value)
        found = status(settings_of(server, admin_key=None))
        assert (found.state, found.details) == ("ready", {})


def test_clear_cache_where_the_server_does_not_do_it(transcriber: Transcriber) -> None:
    with loading() as (_, port):
        settings = transcriber.settings.model_copy(update={"port": port})
        with pytest.raises(KitError, match="the server is starting: loading weights/model"):
            cache.clear_device(settings, dry_run=False)
