"""What the container gets of this host, as a second compose file: image, port, user, NPUs, mounts, settings."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from env.errors import KitError
from env.field import note, variable
from env.settings import DEMO, Settings
from env.sources import operator_environment, under_project
from runtime import demo
from runtime.files import make_private, write_whole
from runtime.host.docker import read_output
from runtime.host.npu_host import NPU_MANAGER, NPU_SMI
from runtime.host.npu_smi import npu_numbers
from runtime.ops.deploy import limits, monitoring
from runtime.ops.deploy.image import PROXIES, release_name
from runtime.ops.deploy.limits import Load
from runtime.ops.deploy.mounts import FILES, given, given_paths
from runtime.proxies import is_on_loopback
from runtime.urls import ANY_IPV4, ANY_IPV6, LOOPBACKS, addresses, has_ipv6, in_url, own_names

KIT = Path("/kit")  # of docker/Dockerfile
UNPRIVILEGED = 10001  # likewise
OP_CACHE = "op-cache"
RUNTIME = "ascend"  # as ascend-docker-runtime's installer calls it

# From the README of Ascend's images. A source that does not exist is left out: Docker would make an empty directory of
# that name, which breaks npu-smi on the host.
NPU_DEVICES = (NPU_MANAGER, "/dev/devmm_svm", "/dev/hisi_hdc")
NPU_MOUNTS = (
    "/usr/local/dcmi",
    *NPU_SMI,
    "/usr/local/Ascend/driver/lib64",
    "/usr/local/Ascend/driver/version.info",
    "/etc/ascend_install.info",
)
SHARED_MEMORY = {"atlas-300i-duo": 10}  # GiB
DEFAULT_SHARED_MEMORY = 1

LAST_STEPS = 10  # seconds from the end of draining to the end of the process
LAST_STEPS_OF_VLLM = 30  # in which the processes that hold the NPUs end, too
# Seconds of a start that ASR_VLLM_START_SECONDS does not count: weights are hashed before (4.7 GB take 90 s from a disk
# with 50 MB/s), and a clip is transcribed after, for whose first token the engine waits 300 s.
AROUND_VLLM = 600

VLLM_HEALTH = "/health"  # where vLLM, which has no stages, says whether it is ready

# Settings that are about the host, or that mean another path in the container.
NOT_HANDED_ON = {
    *(
        "base_image",
        "base_os",
        "bundle_key",
        "compose_file",
        "container_cpus",
        "container_memory_mib",
        "container_pids",
        "gid",
        "host",
        "image",
        "model",
        "npus",
        "op_cache_dir",
        "out_dir",
        "port",
        "profile",
    ),
    *FILES,
    *("torch_npu", "uid", "vllm_python", "weights_lock"),
    *("alertmanager", "monitoring", "npu_exporter"),
    *("grafana_image", "grafana_port", "prometheus_image", "prometheus_port"),
    *("hub", "hub_endpoint", "hub_revision", "hub_token", "hub_workers"),
}


def project_name(settings: Settings) -> str:
    """The compose project: one for each port, so that a host with eight NPUs can run eight."""
    return f"qwen3-asr-{settings.port}"


def host_file(settings: Settings) -> Path:
    """Where the second compose file is. Not in a directory that the container can write to."""
    return under_project(settings.out_dir) / f"compose-{settings.port}.json"


def server_directory(settings: Settings) -> Path:
    """What the container sees as its `out`: logs and reports."""
    return under_project(settings.out_dir) / f"server-{settings.port}"


def write_host_file(settings: Settings, *, root: Path = Path("/")) -> Path:
    """Write the second compose file, and make the directory that the container writes to.

    `root` is where the host's devices and drivers are looked for. Raises KitError where an NPU of ASR_NPUS is not
    there, a file that the container needs is not, or the directory cannot be made.
    """
    for name, path in given_paths(settings).items():
        if not path.is_file():  # Docker would make an empty directory of it
            raise KitError(variable(name), f"{path} is no file", "correct it, or unset it")
    for directory in writable(settings):
        make_writable(directory, user(settings))
    path = host_file(settings)
    write_whole(
        path, json.dumps(describe(settings, root=root, environment=operator_environment()), indent=2) + "\n", mode=0o600
    )
    return path


def describe(settings: Settings, *, root: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The second compose file's content."""
    uid, gid = user(settings)
    service: dict[str, Any] = {
        "image": release_name(settings),
        "user": f"{uid}:{gid}",
        "ports": ports(settings),
        "environment": {**handed_on(settings, environment), **dict.fromkeys(proxies(environment))},
        "volumes": mounts(settings),
        # Docker kills what has not ended by then; draining comes first.
        "stop_grace_period": f"{stop_seconds(settings)}s",
        **limits.limits(settings, load(settings)),
    }
    if settings.engine_name == "vllm":  # the image's health check gives up where the engine still waits
        service["healthcheck"] = {"start_period": f"{math.ceil(settings.vllm_start_seconds) + AROUND_VLLM}s"}
    if settings.vllm_alone:
        service["command"] = ["invoke", "vllm"]
        service["healthcheck"]["test"] = ["CMD", f"{KIT}/docker/bin/healthcheck", VLLM_HEALTH]
    if settings.stack != "cpu":
        service["group_add"] = groups(settings, root)
        service["shm_size"] = f"{shared_memory(settings)}g"
        if has_runtime():
            service["runtime"] = RUNTIME
            service["environment"]["ASCEND_VISIBLE_DEVICES"] = settings.npus
        else:
            service["devices"] = devices(settings, root)
            service["volumes"] += [f"{path}:{path}:ro" for path in NPU_MOUNTS if there(root, path)]
    watching = monitoring.describe(settings)
    return {**watching, "services": {"asr": service, **watching["services"]}}


def load(settings: Settings) -> Load:
    """What the container holds: with vLLM an engine for each NPU, or none but the servers elsewhere."""
    alone = settings.engine_name != "vllm" or settings.vllm_url
    engines = 1 if alone else settings.vllm_replicas or len(npu_numbers(settings.npus))
    weights = 0 if settings.vllm_url else limits.weights_of(model_on_host(settings))
    return Load(engines, weights, shared_memory(settings) * limits.GIB)


def shared_memory(settings: Settings) -> int:
    """GiB of /dev/shm; without an NPU, Docker's 64 MiB."""
    return SHARED_MEMORY.get(settings.profile, DEFAULT_SHARED_MEMORY) if settings.stack != "cpu" else 0


def model_on_host(settings: Settings) -> Path:
    """The checkpoint's directory."""
    return demo.CHECKPOINT if settings.model == DEMO else under_project(settings.model)


def stop_seconds(settings: Settings) -> int:
    """The most seconds from SIGTERM to the end of the server's process: it drains, then takes its last steps."""
    last_steps = LAST_STEPS_OF_VLLM if settings.engine_name == "vllm" else LAST_STEPS
    return math.ceil(settings.drain_seconds) + last_steps


def ports(settings: Settings) -> list[str]:
    """Where the server's port is published. Without an address, Docker takes those of both families, as far as the host
    has them."""
    pair = f"{settings.port}:{settings.port}"
    if settings.host == ANY_IPV6:
        return [pair]
    found = [address for address in addresses(settings.host) if address != LOOPBACKS[1] or has_ipv6()]
    return [f"{in_url(address)}:{pair}" for address in found or addresses(settings.host)]


def handed_on(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the container: what the operator set, as far as it is not about the host."""
    # Of both families, as the container's network may have either; vLLM knows no way out where the kernel lacks IPv6.
    everywhere = ANY_IPV4 if settings.vllm_alone else ANY_IPV6
    found = {variable("profile"): settings.profile, variable("host"): everywhere, variable("port"): str(settings.port)}
    for name, field in type(settings).model_fields.items():
        for key in (note(field, "exports"), variable(name)):
            if key and name not in NOT_HANDED_ON and environment.get(key):
                found[key] = environment[key]
    if settings.model != DEMO:
        found[variable("model")] = f"weights/{under_project(settings.model).name}"
    else:
        found[variable("model")] = DEMO
    if settings.op_cache_dir:
        found[variable("op_cache_dir")] = OP_CACHE
    if names := allowed_hosts(settings):
        found[variable("allowed_hosts")] = ",".join(names)
    return found | {variable(name): file.path for name, file in given(settings, user(settings)).items()}


def allowed_hosts(settings: Settings) -> list[str]:
    """The names by which the server may be asked beside those that it knows itself: this host's too, which a container
    cannot tell."""
    given = settings.allowed_hosts.replace(" ", "").split(",") if settings.allowed_hosts else []
    return given if "*" in given else [*given, *sorted(name for name in own_names() if "." in name)]


def proxies(environment: Mapping[str, str]) -> list[str]:
    """The variables by which the container finds a proxy for the URLs that it fetches. Compose reads their values, so
    that no proxy's password is written down here."""
    return [name for name in PROXIES if environment.get(name) and name not in proxies_out_of_reach(environment)]


def proxies_out_of_reach(environment: Mapping[str, str]) -> list[str]:
    """The variables that name a proxy on the host's loopback: in the container nothing listens there."""
    return [name for name in PROXIES if not name.lower().startswith("no") and is_on_loopback(environment.get(name, ""))]


def writable(settings: Settings) -> dict[Path, str]:
    """The directories that the container writes to, and what it calls them: its output, and the operators that CANN
    compiled, which the servers of a host share."""
    found = {server_directory(settings): f"{KIT}/out"}
    if settings.op_cache_dir:
        found[under_project(settings.op_cache_dir)] = f"{KIT}/{OP_CACHE}"
    return found


def mounts(settings: Settings) -> list[str]:
    """The directories that the container writes to; weights, keys and certificates, which it does not."""
    found = [f"{source}:{target}" for source, target in writable(settings).items()]
    files = given(settings, user(settings)).values()
    found += dict.fromkeys(mount for file in files for mount in file.mounts)
    if settings.model != DEMO:
        model, lock = under_project(settings.model), under_project(settings.weights_lock)
        sources = {model: model.name, lock: "weights.lock", model.parent / "clips": "clips"}
        found += [f"{source}:{KIT}/weights/{name}:ro" for source, name in sources.items() if source.exists()]
    return found


def devices(settings: Settings, root: Path) -> list[str]:
    """The device nodes of the NPUs. Raises KitError where one of ASR_NPUS is not there."""
    nodes = [f"/dev/davinci{number}" for number in npu_numbers(settings.npus)]
    missing = [node for node in (*nodes, *NPU_DEVICES) if not there(root, node)]
    if missing:
        have = sorted(path.name for path in (root / "dev").glob("davinci[0-9]*"))
        reason = f"{', '.join(missing)} not there; this host has {', '.join(have) or 'no /dev/davinciN'}"
        raise KitError(variable("npus"), reason, "npu-smi info lists the NPUs; invoke doctor says more")
    return [f"{node}:{node}" for node in (*nodes, *NPU_DEVICES)]


def groups(settings: Settings, root: Path) -> list[str]:
    """The groups that own the device nodes, often HwHiAiUser's 1000. Without capabilities even root needs them: the
    nodes are open to owner and group only."""
    nodes = [root / node.partition(":")[0].lstrip("/") for node in devices(settings, root)]
    return [str(gid) for gid in sorted({node.stat().st_gid for node in nodes})]


def user(settings: Settings) -> tuple[int, int]:
    """User and group of the container."""
    uid = settings.uid if settings.uid is not None else UNPRIVILEGED if settings.stack == "cpu" else 0
    return uid, settings.gid if settings.gid is not None else uid


def has_runtime() -> bool:
    """Whether ascend-docker-runtime is installed, which brings devices and mounts on its own."""
    return RUNTIME in json.loads(read_output(["docker", "info", "--format", "{{json .Runtimes}}"]) or "{}")


def there(root: Path, path: str) -> bool:
    """Whether a path of the host exists, and is no empty directory that Docker made of a missing source."""
    found = root / path.lstrip("/")
    return found.exists() and not (found.is_dir() and not any(found.iterdir()))


def make_writable(directory: Path, owner: tuple[int, int]) -> None:
    """Make a directory that the container's user can write to, whoever that is. Raises KitError.

    The container has no capabilities: even its root may write only what is open to it.
    """
    try:
        make_private(directory)
        if os.geteuid() == 0:
            os.chown(directory, *owner)
        elif directory.stat().st_uid == os.geteuid() != owner[0]:
            directory.chmod(0o1777)
    except OSError as error:
        advice = f"sudo chown {owner[0]}:{owner[1]} {directory}"
        raise KitError(str(directory), f"cannot be made: {error.strerror}", advice) from None
