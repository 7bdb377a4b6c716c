"""Today's facts: the host, what is installed, the weights, the image, the settings, and the device."""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from env import stacks
from env.errors import KitError
from env.reference import describe
from env.settings import DEMO, Settings
from env.sources import exports, load_settings
from runtime.demo import CHECKPOINT as DEMO_CHECKPOINT
from runtime.host import docker
from runtime.host.npu_smi import NpuSmiReport as NpuSmi
from runtime.host.npu_smi import read_report as npu_smi
from runtime.host.probe import Host, run_command
from runtime.measure.records import Where, here, of
from runtime.measure.report.record import File, HostFacts, Image, ReportWeights
from runtime.model.device import Device, open_device
from runtime.ops.deploy import image
from runtime.ops.doctor import examine_host
from runtime.ops.doctor.docker import cann_version
from runtime.ops.doctor.npu import driver_version
from runtime.ops.image_manifest import MANIFEST, read_manifest
from runtime.transcriber import open_transcriber
from runtime.weights import catalog as known
from runtime.weights.catalog import place, recorded
from runtime.weights.lockfile import digest

FIRST_USE = 180.0  # seconds to open a device, as the doctor allows


@dataclass(frozen=True)
class Spot:
    """Where measurements will run; `fault` says why no device can be opened, empty if one can."""

    where: Where
    fault: str


def spot(settings: Settings) -> Spot:
    """Ask a process of its own, which opens the device and ends. Where that fails, nothing can be measured."""
    starting = settings.vllm_start_seconds if settings.engine_name == "vllm" else 0.0
    answer = run_command([sys.executable, "-m", "runtime.measure.report.facts"], seconds=FIRST_USE + starting)
    lines = [line for line in answer.output.splitlines() if line.startswith('{"where"')]
    if lines:
        return TypeAdapter(Spot).validate_json(lines[-1])
    fault = answer.fault or "the process that opens it says nothing"
    return Spot(here(settings, Device("cpu", fault)), fault)


def gather(settings: Settings, host: Host) -> HostFacts:
    """All facts but the device's. Raises KitError for settings that contradict each other."""
    stack = stacks.active_stack()
    findings = examine_host(settings, host)
    smi, why = chips(host)
    return HostFacts(
        stack=stack,
        packages=tuple(stacks.compare(stack)),
        findings=tuple(findings),
        driver=driver_version(host),
        cann=cann_version(host),
        weights=_weights(settings),
        image=_image(settings),
        settings=tuple(describe(settings)),
        smi=smi,
        smi_fault=why,
    )


def chips(host: Host) -> tuple[NpuSmi | None, str]:
    """What npu-smi tells, or why it tells nothing."""
    try:
        return npu_smi(host), ""
    except KitError as error:
        return None, f"{error.subject} {error.reason}"


def _weights(settings: Settings) -> ReportWeights:
    """What weights.lock says; of the demo model, which has no lock, what is there."""
    if settings.model == DEMO:
        files = sorted(path for path in DEMO_CHECKPOINT.iterdir() if path.is_file())
        sums = [(path.name, digest(path, size=path.stat().st_size).record) for path in files]
        return ReportWeights(DEMO, False, files=tuple(File(name, record.size, record.sha256) for name, record in sums))
    entry = recorded(settings)
    where = place(settings, known.load())
    if entry is None:
        return ReportWeights(settings.model, False, repo=where.repo)
    files_of = tuple(File(name, record.size, record.sha256) for name, record in sorted(entry.files.items()))
    origin = {"hub": entry.hub, "endpoint": entry.endpoint, "revision": entry.revision, "commit": entry.commit}
    return ReportWeights(settings.model, True, repo=where.repo, date=entry.date, files=files_of, **origin)


def _image(settings: Settings) -> Image:
    """In a container its manifest; on a host what docker knows of the image that the settings mean."""
    if MANIFEST.is_file():
        told = read_manifest(MANIFEST)
        return Image(
            place="container",
            base=told.base_image,
            stack=told.stack,
            version=told.version,
            commit=told.commit,
            written=told.written,
        )
    name = image.image_name(settings)
    text = docker.read_output(["docker", "image", "inspect", "--format", "{{json .}}", name])
    if not text:
        return Image(place="host", name=name)
    found: dict[str, Any] = json.loads(text)
    labels = (found.get("Config") or {}).get("Labels") or {}
    return Image(
        place="host",
        name=name,
        id=str(found.get("Id", "")),
        digests=tuple(found.get("RepoDigests") or ()),
        base=labels.get("org.opencontainers.image.base.name", ""),
        stack=labels.get(image.STACK_LABEL, ""),
        version=labels.get("org.opencontainers.image.version", ""),
        commit=labels.get("org.opencontainers.image.revision", ""),
        written=str(found.get("Created", "")),
    )


def main() -> None:
    """Print a `Where`, as the last line, and why no device could be opened if none could."""
    settings = load_settings()
    fault = ""
    try:
        found = _found(settings)
    except KitError as error:
        found, fault = here(settings, Device("cpu", str(error))), str(error)
    print(json.dumps({"where": asdict(found), "fault": fault}))


def _found(settings: Settings) -> Where:
    """Raises KitError where no device can be opened, or vLLM does not start."""
    if settings.engine_name == "vllm":
        with open_transcriber(settings) as transcriber:
            return of(transcriber)
    return here(settings, open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile))


if __name__ == "__main__":
    main()
