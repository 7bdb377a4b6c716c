"""Health checks and metrics, which answer from the start of the process."""

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import HTTPConnection

from env.settings import Settings
from env.sources import under_project
from runtime.engines import EngineServer
from runtime.model.device import Memory
from runtime.server.metrics import Metrics
from runtime.server.routes.info import memory, names
from runtime.server.service import Service
from runtime.server.state import ServerState, state_of
from runtime.version import version

ALLOW = {"Allow": "GET, HEAD, OPTIONS"}

router = APIRouter(prefix="/health", tags=["health"])

metrics_router = APIRouter(include_in_schema=False)


@router.options("/live", include_in_schema=False)  # HAProxy's `option httpchk` asks by OPTIONS unless told otherwise
@router.get("/live")
async def live(request: Request) -> Response:
    """200 as long as the process answers."""
    return _answer(request, 200)


@router.options("/ready", include_in_schema=False)
@router.get("/ready")
async def ready(request: Request) -> Response:
    """200 once a clip was transcribed and while requests are accepted, else 503 with how far it is."""
    return _answer(request, 200 if state_of(request).status == "ready" else 503)


def _answer(request: Request, code: int) -> Response:
    server_state = state_of(request)
    body = {"status": server_state.status, "stage": server_state.status_text}
    content = json.dumps(body)  # with spaces, for the eyes of operators
    return Response(content, code, ALLOW, media_type="application/json")


@metrics_router.get("/metrics")
def metrics(request: Request) -> Response:
    """All metrics, as text or, for who accepts it, in the OpenMetrics form."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(metrics_of(request).registry), headers={"Content-Type": media_type})


def metrics_of(connection: HTTPConnection) -> Metrics:
    """The metrics of the server that a request or session belongs to."""
    found = connection.app.state.metrics
    assert isinstance(found, Metrics)
    return found


class ServerCollector(Collector):
    """Metrics of the server's current state; most need a model."""

    def __init__(self, server_state: ServerState) -> None:
        self._server_state = server_state
        self._snapshot: _Snapshot | None = None
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        server_state = self._server_state
        service = server_state.loaded
        yield _gauge("asr_ready", "1 if requests are accepted, else 0.", server_state.status == "ready")
        yield CounterMetricFamily("asr_engine_restarts", "Engines replaced after a crash.", server_state.restarts)
        pending = service.pending if service else 0
        yield _gauge("asr_requests_held", "Requests that wait or are worked on.", pending)
        engine = service.transcriber.engine.status() if service else None
        waiting, decoding = (engine.waiting, engine.decoding) if engine else (0, 0)
        yield _gauge("asr_queue_utterances", "Utterances that wait in the engine.", waiting)
        yield _gauge("asr_decoding_utterances", "Utterances that are being decoded.", decoding)
        if service:
            snapshot = self._take_snapshot(service)
            if snapshot.memory:
                yield _memory_metric(snapshot.memory)
            yield _disk_metric(snapshot.free)
            yield InfoMetricFamily("asr", "What serves.", snapshot.labels)
        yield from _vllm_metrics(engine.servers if engine else ())

    def _take_snapshot(self, service: Service) -> "_Snapshot":
        """Query device and disks. If one does not answer, that delays one scrape; others get the last values."""
        if self._lock.acquire(blocking=self._snapshot is None):
            try:
                device = memory(service.transcriber.device)
                self._snapshot = _Snapshot(device, _labels(service), _disk_free(service.settings))
            finally:
                self._lock.release()
        assert self._snapshot
        return self._snapshot


@dataclass(frozen=True)
class _Snapshot:
    """The device's memory, None if unknown; the labels of `asr_info`; `free` bytes on disk, by the directory's
    purpose."""

    memory: Memory | None
    labels: dict[str, str]
    free: dict[str, int]


def _gauge(name: str, description: str, value: float) -> Metric:
    return GaugeMetricFamily(name, description, value)


def _memory_metric(memory: Memory) -> Metric:
    family = GaugeMetricFamily(
        "asr_device_memory_bytes",
        "Memory of the device; on a CPU, of the process that has the model: its resident size.",
        labels=("kind",),
    )
    for kind, count in (("used", memory.used), ("reserved", memory.reserved), ("total", memory.total)):
        family.add_metric((kind,), count)
    return family


def _disk_free(settings: Settings) -> dict[str, int]:
    """Directories that cannot be queried are left out."""
    found = {}
    for name, path in (("out", under_project(settings.out_dir)), ("spool", Path(tempfile.gettempdir()))):
        with contextlib.suppress(OSError):
            found[name] = shutil.disk_usage(path).free
    return found


def _disk_metric(free: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(
        "asr_disk_free_bytes",
        "Room on disk: `out` has logs, reports and compiled operators, `spool` uploads that wait.",
        labels=("directory",),
    )
    for name, count in free.items():
        family.add_metric((name,), count)
    return family


def _vllm_metrics(servers: Sequence[EngineServer]) -> Iterator[Metric]:
    """Metrics of each vLLM server, if there are any."""
    up = GaugeMetricFamily("asr_vllm_up", "1 if the vLLM server is given utterances, else 0.", labels=("server",))
    decoding = GaugeMetricFamily("asr_vllm_utterances", "Utterances that the vLLM server has.", labels=("server",))
    for server in servers:
        up.add_metric((server.name,), not server.trouble)
        decoding.add_metric((server.name,), server.decoding)
    yield from (up, decoding) if servers else ()


def _labels(service: Service) -> dict[str, str]:
    transcriber, settings = service.transcriber, service.settings
    return {
        "version": version(),
        "engine": transcriber.engine.name,
        "model": names(settings)[0],
        "device": transcriber.device.name,
        "hardware": transcriber.device.description(),
        "dtype": settings.dtype,
    }
