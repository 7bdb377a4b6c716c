"""The container, and what it may use of the host."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic_settings import BaseSettings

from env.field import setting


def _address(text: str) -> str:
    """In the spelling that everything compares: without brackets, IPv6 as RFC 5952 writes it. Raises ValueError."""
    if text.lower() == "localhost":
        return "localhost"
    address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError("an address of one link")
        address = address.ipv4_mapped or address
    return str(address)


class ContainerSettings(BaseSettings):
    """Address, NPUs, user, image, monitoring."""

    host: Annotated[str, AfterValidator(_address)] = setting(
        "127.0.0.1",
        "",
        "Address on which the server listens. 0.0.0.0 opens it to other hosts, to anyone who reaches it; :: over IPv6 "
        "too.",
        form="IPv4 or IPv6 address, or localhost",
    )
    port: int = setting(8000, "", "Port on which the server listens.", ge=1, le=65535)
    npus: str = setting(
        "0",
        "",
        "NPUs that the container gets, by the number in /dev/davinciN.",
        form="0 or 0-3,6",
        pattern=r"^\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*$",
    )
    uid: int | None = setting(
        None,
        "",
        "User that the container runs as. Not set: root on an NPU, as Ascend's images do, else 10001.",
        ge=0,
        le=2**31 - 1,
    )
    gid: int | None = setting(
        None,
        "",
        "Group that the container runs as; the NPUs' device nodes must be open to it. Not set: as ASR_UID.",
        ge=0,
        le=2**31 - 1,
    )
    image: str | None = setting(
        None,
        "",
        "Name of the image. Set: pulled if it is not there. Not set: built here.",
        form="name[:tag][@digest]",
        pattern=r"^[\w.:/@-]+$",
    )
    base_image: str | None = setting(
        None,
        "",
        "What the image is built on, such as a mirror's copy. Not set: the stack's image in env/stacks.toml.",
        form="name[:tag][@digest]",
        pattern=r"^[\w.:/@-]+$",
    )
    base_os: Literal["ubuntu", "openeuler"] | None = setting(
        None,
        "",
        "System that the image is built on, for an NPU. Not set: the stack's first one.",
    )
    torch_npu: Literal["wheel", "index"] = setting(
        "wheel",
        "",
        "Which torch-npu the image gets: the validated wheel, or the release in the package index.",
    )
    container_memory_mib: int | None = setting(
        None,
        "MiB",
        "Most memory of the container, /tmp included; beyond it the kernel ends the server. Not set: what the other "
        "settings let it hold.",
        ge=512,
        le=1 << 24,
    )
    container_pids: int | None = setting(
        None,
        "",
        "Most processes and threads of the container. Not set: 4096 for each engine.",
        ge=256,
        le=1 << 22,
    )
    container_cpus: float | None = setting(
        None,
        "cores",
        "Most CPU time of the container. Not set: no limit, as what launches an NPU's kernels must not be throttled; "
        "with one, ASR_CPU_AFFINITY_CONF needs force:1.",
        ge=0.5,
        le=1024,
    )
    compose_file: Path | None = setting(
        None,
        "",
        "Compose file of your own, merged last by `make up`; docker/HARDENING.md has examples. Not set: none.",
    )
    bundle_key: Path | None = setting(
        None,
        "",
        "SSH key that `invoke bundle` signs with: the file of a private key, or that of a public one whose private key "
        "the agent holds. Not set: a bundle is not signed.",
    )
    monitoring: bool = setting(
        False,
        "",
        "Run Prometheus and Grafana beside the server, open to this host alone.",
    )
    prometheus_port: int = setting(
        9090,
        "",
        "Port of this host on which Prometheus listens; another one for each server.",
        ge=1,
        le=65535,
    )
    grafana_port: int = setting(
        3000,
        "",
        "Port of this host on which Grafana listens; another one for each server.",
        ge=1,
        le=65535,
    )
    prometheus_image: str = setting(
        "prom/prometheus:v3.13.3",
        "",
        "Image of Prometheus, such as a mirror's copy. Pulled if it is not there.",
        form="name[:tag][@digest]",
        pattern=r"^[\w.:/@-]+$",
    )
    grafana_image: str = setting(
        "grafana/grafana:12.4.10",
        "",
        "Image of Grafana, such as a mirror's copy. Pulled if it is not there.",
        form="name[:tag][@digest]",
        pattern=r"^[\w.:/@-]+$",
    )
    alertmanager: str | None = setting(
        None,
        "",
        "Where an Alertmanager listens, as containers see this host; Prometheus sends it the alerts. Not set: none.",
        form="host:port",
        pattern=r"^[\w.-]+:\d{1,5}$",
    )
    npu_exporter: str = setting(
        "172.17.0.1:8082",
        "",
        "Where MindCluster's NPU Exporter listens, as containers see this host. Asked where there are NPUs.",
        form="host:port",
        pattern=r"^[\w.-]+:\d{1,5}$",
    )


class NativeSettings(BaseSettings):
    """Handed on under the names in `exports`."""

    task_queue_enable: int = setting(
        1,
        "",
        "Operator queue of torch_npu: 0 off, 1 on, 2 prepares operators in the background too, for more peak memory.",
        exports="TASK_QUEUE_ENABLE",
        ge=0,
        le=2,
    )
    npu_alloc_conf: str | None = setting(
        None,
        "",
        "Options of torch_npu's memory allocator.",
        exports="PYTORCH_NPU_ALLOC_CONF",
        form="option:value,…",
        pattern=r"^\w+:[^,\s]+(,\w+:[^,\s]+)*$",
    )
    cpu_affinity_conf: str | None = setting(
        None,
        "",
        "Binds torch_npu's threads to cores: 0 no, 1 coarsely, 2 finely; add force:1 under cgroup limits.",
        exports="CPU_AFFINITY_CONF",
        form="0, 1, 2 or 2,option:value,…",
        pattern=r"^[012](,\w+:[\w-]+)*$",
    )
    omp_num_threads: int | None = setting(
        None,
        "threads",
        "CPU threads for one operator. Not set: as many as there are cores.",
        exports="OMP_NUM_THREADS",
        ge=1,
        le=1024,
    )
    op_cache_dir: Path | None = setting(
        None,
        "",
        "Where CANN keeps the operators it compiled. In a container, put it on a volume that is kept.",
        exports="ACL_OP_COMPILER_CACHE_DIR",
    )
    jit_compile: bool = setting(
        False,
        "",
        "Compile each operator for each new shape instead of using CANN's ready kernels. Slow where lengths vary.",
    )
