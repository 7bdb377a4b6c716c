"""What watches the server, where ASR_MONITORING asks for it: Prometheus and Grafana, as far as settings decide."""

import contextlib
import hashlib
import json
import shutil
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

from env.errors import KitError
from env.field import variable
from env.settings import Settings
from env.sources import PROJECT, under_project
from runtime.files import write_whole
from runtime.host import docker
from runtime.host.docker import READY_POLL_SECONDS, NotReadyError, container_state, read_log_end
from runtime.ops.deploy import image

PROFILE = "monitoring"  # of docker/compose.yaml, whose services these are
FILES = PROJECT / "docker" / "monitoring"
LOOPBACK = "127.0.0.1"
FILES_LABEL = "qwen3-asr.files"
TIMEOUT = 4.0  # seconds for an answer
OTHER_IMAGES = "ASR_PROMETHEUS_IMAGE and ASR_GRAFANA_IMAGE name a mirror's copies; without internet: docker load"


def directory(settings: Settings) -> Path:
    """What Prometheus and Grafana read, on the host."""
    return under_project(settings.out_dir) / f"monitoring-{settings.port}"


def wanted(settings: Settings) -> bool:
    """Whether ASR_MONITORING asks for it, or did when the server was started last."""
    return settings.monitoring or directory(settings).exists()


def addresses(settings: Settings) -> dict[str, str]:
    """Where the services answer, as seen from this host."""
    ports = {"grafana": settings.grafana_port, "prometheus": settings.prometheus_port}
    return {service: f"http://{LOOPBACK}:{port}" for service, port in ports.items()}


def describe(settings: Settings) -> dict[str, Any]:
    """The part of the second compose file. Its volumes, which `make down` keeps for the next `make up`, and all that is
    mounted are there where they are wanted: compose makes volumes for services that it does not start, too."""
    images = {"prometheus": settings.prometheus_image, "grafana": settings.grafana_image}
    services: dict[str, dict[str, Any]] = {service: {"image": name} for service, name in images.items()}
    if not wanted(settings):
        return {"services": services}
    read = directory(settings)
    services["prometheus"] |= {
        "ports": [f"{LOOPBACK}:{settings.prometheus_port}:9090"],
        "volumes": ["prometheus:/prometheus", f"{read}/prometheus:/etc/prometheus:ro"],
        # Prometheus reads its files when it starts: other files make compose start it anew.
        "labels": {FILES_LABEL: hashlib.sha256("".join(texts().values()).encode()).hexdigest()},
    }
    kinds = ("dashboards", "datasources")
    provisioned = [f"{read}/grafana/{kind}:/etc/grafana/provisioning/{kind}:ro" for kind in kinds]
    services["grafana"] |= {
        "ports": [f"{LOOPBACK}:{settings.grafana_port}:3000"],
        "volumes": ["grafana:/var/lib/grafana", *provisioned],
    }
    return {"services": services, "volumes": {service: {} for service in services}}


def prepare(settings: Settings) -> None:
    """Have the images, and write what both read. Raises KitError."""
    for name in (settings.prometheus_image, settings.grafana_image):
        if not image.labels(name):
            docker.run(["docker", "pull", name], advice=OTHER_IMAGES)
    write(settings)


def write(settings: Settings) -> None:
    """Write what Prometheus and Grafana read: the files of docker/monitoring, and whom to ask. Raises KitError."""
    found = dict(texts())
    for job, groups in targets(settings).items():
        found[Path("prometheus", "targets", f"{job}.json")] = json.dumps(groups, indent=2) + "\n"
    try:
        for path, text in found.items():
            write_whole(directory(settings) / path, text)
            # Their users are their images' own, and the umask, or that of the clone, may have shut them out.
            (directory(settings) / path).chmod(0o644)
            (directory(settings) / path).parent.chmod(0o755)
    except OSError as error:
        raise KitError(str(directory(settings)), f"cannot be written: {error.strerror}", variable("out_dir")) from None


def texts() -> dict[Path, str]:
    """The files of docker/monitoring that containers read, by their paths there: not what is beside the folders, which
    is for people."""
    return {path.relative_to(FILES): path.read_text("utf-8") for path in sorted(FILES.glob("*/**/*")) if path.is_file()}


def targets(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Whom Prometheus asks, by job: the server by its name in the containers' network, and the host's NPU Exporter
    where there are NPUs. `alertmanager` is whom it tells."""
    scheme = "https" if settings.tls_cert_file else "http"
    return {
        "alertmanager": [{"targets": [settings.alertmanager]}] if settings.alertmanager else [],
        "asr": [{"targets": [f"asr:{settings.port}"], "labels": {"__scheme__": scheme}}],
        "npu": [{"targets": [settings.npu_exporter]}] if settings.stack != "cpu" else [],
    }


def await_answers(settings: Settings, container: Callable[[str], str]) -> None:
    """Return when the services, whose containers `container` tells, answer. Raises NotReadyError where one ended, or
    its health check gave up."""
    paths = {"grafana": "/api/health", "prometheus": "/-/ready"}
    for service, address in addresses(settings).items():
        while not _answers(address + paths[service]):
            state = container_state(container(service))
            if state.status not in ("created", "running") or state.restarts or state.health == "unhealthy":
                reason = f"does not answer; the end of its log:\n{read_log_end(container(service))}"
                raise NotReadyError(service, reason, "make ps")
            time.sleep(READY_POLL_SECONDS)


def remove(settings: Settings) -> None:
    """Remove what `write` wrote."""
    shutil.rmtree(directory(settings), ignore_errors=True)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, HTTPException), opener.open(url, timeout=TIMEOUT):
        return True
    return False
