"""The health endpoints, which answer from the first moment on."""

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
from runtime.server.state import ServerState, life_of
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
    return _answer(request, 200 if life_of(request).status == "ready" else 503)


def _answer(request: Request, code: int) -> Response:
    life = life_of(request)
    content = json.dumps({"status": life.status, "stage": life.stage})  # with spaces, for the eyes of operators
    return Response(content, code, ALLOW, media_type="application/json")


@metrics_router.get("/metrics")
def metrics(request: Request) -> Response:
    """All metrics, as text or, for who accepts it, in the OpenMetrics form."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(metrics_of(request).registry), headers={"Content-Type": media_type})


def metrics_of(connection: HTTPConnection) -> Metrics:
    """The metrics of the server that answers a request or leads a session."""
    found = connection.app.state.metrics
    assert isinstance(found, Metrics)
    return found


class Now(Collector):
    """What the server is doing when it is asked. Before there is a model, nothing."""

    def __init__(self, life: ServerState) -> None:
        self._life = life
        self._seen: _Seen | None = None
        self._asking = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        life = self._life
        service = life.loaded
        yield _gauge("asr_ready", "1 if requests are accepted, else 0.", life.status == "ready")
        yield CounterMetricFamily("asr_engine_restarts", "Engines replaced after a crash.", life.restarts)
        held = service.held if service else 0
        yield _gauge("asr_requests_held", "Requests that wait or are worked on.", held)
        engine = service.transcriber.engine.status() if service else None
        waiting, decoding = (engine.waiting, engine.decoding) if engine else (0, 0)
        yield _gauge("asr_queue_utterances", "Utterances that wait in the engine.", waiting)
        yield _gauge("asr_decoding_utterances", "Utterances that are being decoded.", decoding)
        if service:
            seen = self._look(service)
            if seen.memory:
                yield _used(seen.memory)
            yield _free(seen.free)
            yield InfoMetricFamily("asr", "What serves.", seen.labels)
        yield from _servers(engine.servers if engine else ())

    def _look(self, service: Service) -> "_Seen":
        """A device or disk that does not answer keeps one scrape waiting; the others tell what was so before."""
        if self._asking.acquire(blocking=self._seen is None):
            try:
                self._seen = _Seen(memory(service.transcriber.device), _labels(service), _disks(service.settings))
            finally:
                self._asking.release()
        assert self._seen
        return self._seen


@dataclass(frozen=True)
class _Seen:
    """What a device told: its memory, None where it cannot, and the labels of what serves. `free` is bytes on disk, by
    what the directory is for."""

    memory: Memory | None
    labels: dict[str, str]
    free: dict[str, int]


def _gauge(name: str, description: str, value: float) -> Metric:
    return GaugeMetricFamily(name, description, value)


def _used(memory: Memory) -> Metric:
    family = GaugeMetricFamily(
        "asr_device_memory_bytes",
        "Memory of the device; on a CPU, of the process that has the model: its resident size.",
        labels=("kind",),
    )
    for kind, count in (("used", memory.used), ("reserved", memory.reserved), ("total", memory.total)):
        family.add_metric((kind,), count)
    return family


def _disks(settings: Settings) -> dict[str, int]:
    """Without those that cannot be asked."""
    found = {}
    for name, path in (("out", under_project(settings.out_dir)), ("spool", Path(tempfile.gettempdir()))):
        with contextlib.suppress(OSError):
            found[name] = shutil.disk_usage(path).free
    return found


def _free(free: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(
        "asr_disk_free_bytes",
        "Room on disk: `out` has logs, reports and compiled operators, `spool` uploads that wait.",
        labels=("directory",),
    )
    for name, count in free.items():
        family.add_metric((name,), count)
    return family


def _servers(servers: Sequence[EngineServer]) -> Iterator[Metric]:
    """Of the vLLM servers, where they decode."""
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
