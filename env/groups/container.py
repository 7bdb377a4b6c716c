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
        "服务监听的地址。0.0.0.0 表示对其他主机开放,任何能连通的人都可访问;:: 表示同时开放 IPv6。",
        form="IPv4 or IPv6 address, or localhost",
    )
    port: int = setting(8000, "", "Port on which the server listens.", "服务监听的端口。", ge=1, le=65535)
    npus: str = setting(
        "0",
        "",
        "NPUs that the container gets, by the number in /dev/davinciN.",
        "容器使用的 NPU,编号即 /dev/davinciN 中的 N。",
        form="0 or 0-3,6",
        pattern=r"^\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*$",
    )
    uid: int | None = setting(
        None,
        "",
        "User that the container runs as. Not set: root on an NPU, as Ascend's images do, else 10001.",
        "容器的运行用户。未设置时:有 NPU 为 root(与昇腾镜像一致),否则为 10001。",
        ge=0,
        le=2**31 - 1,
    )
    gid: int | None = setting(
        None,
        "",
        "Group that the container runs as; the NPUs' device nodes must be open to it. Not set: as ASR_UID.",
        "容器的运行用户组,需有 NPU 设备节点的权限。未设置时与 ASR_UID 相同。",
        ge=0,
        le=2**31 - 1,
    )
    image: str | None = setting(
        None,
        "",
        "Name of the image. Set: pulled if it is not there. Not set: built here.",
        "镜像名。设置后:本机没有则拉取;未设置:在本机构建。",
        form="name[:tag][@digest]",
        pattern=r"^[\w.:/@-]+$",
    )
    base_image: str | None = setting(
        None,
        "",
        "What the image is built on, such as a mirror's copy. Not set: the stack's image in env/stacks.toml.",
        "构建所用的基础镜像,例如镜像站中的副本。未设置时取 env/stacks.toml 中该软件栈的镜像。",
        form="name[:tag][@digest]",
        pattern=r"^[\w.:/@-]+$",
    )
    base_os: Literal["ubuntu", "openeuler"] | None = setting(
        None,
        "",
        "System that the image is built on, for an NPU. Not set: the stack's first one.",
        "有 NPU 时镜像所基于的操作系统。未设置时取该软件栈的第一个。",
    )
    torch_npu: Literal["wheel", "index"] = setting(
        "wheel",
        "",
        "Which torch-npu the image gets: the validated wheel, or the release in the package index.",
        "镜像安装哪个 torch-npu:经过验证的 wheel,或软件包索引中的发行版。",
    )
    container_memory_mib: int | None = setting(
        None,
        "MiB",
        "Most memory of the container, /tmp included; beyond it the kernel ends the server. Not set: what the other "
        "settings let it hold.",
        "容器内存上限(含 /tmp),超出时内核会终止服务。未设置时按其他设置允许占用的总量计算。",
        ge=512,
        le=1 << 24,
    )
    container_pids: int | None = setting(
        None,
        "",
        "Most processes and threads of the container. Not set: 4096 for each engine.",
        "容器中进程与线程数的上限。未设置时每个引擎 4096。",
        ge=256,
        le=1 << 22,
    )
    container_cpus: float | None = setting(
        None,
        "cores",
        "Most CPU time of the container. Not set: no limit, as what launches an NPU's kernels must not be throttled; "
        "with one, ASR_CPU_AFFINITY_CONF needs force:1.",
        "容器可用的 CPU 核数上限。未设置时不限制,因为下发算子的线程不能被限流;设置后 ASR_CPU_AFFINITY_CONF 需加 "
        "force:1。",
        ge=0.5,
        le=1024,
    )
    compose_file: Path | None = setting(
        None,
        "",
        "Compose file of your own, merged last by `make up`; docker/HARDENING.md has examples. Not set: none.",
        "自备的 compose 文件,由 `make up` 最后合并,示例见 docker/HARDENING.zh-CN.md。未设置时没有。",
    )
    bundle_key: Path | None = setting(
        None,
        "",
        "SSH key that `invoke bundle` signs with: the file of a private key, or that of a public one whose private key "
        "the agent holds. Not set: a bundle is not signed.",
        "`invoke bundle` 签名所用的 SSH 密钥:私钥文件;私钥由 ssh-agent 保管时也可以是公钥文件。未设置时不签名。",
    )
    monitoring: bool = setting(
        False,
        "",
        "Run Prometheus and Grafana beside the server, open to this host alone.",
        "是否在服务旁运行 Prometheus 和 Grafana,仅本机可访问。",
    )
    prometheus_port: int = setting(
        9090,
        "",
        "Port of this host on which Prometheus listens; another one for each server.",
        "Prometheus 在本机监听的端口,每个服务各用一个。",
        ge=1,
        le=65535,
    )
    grafana_port: int = setting(
        3000,
        "",
        "Port of this host on which Grafana listens; another one for each server.",
        "Grafana 在本机监听的端口,每个服务各用一个。",
        ge=1,
        le=65535,
    )
    prometheus_image: str = setting(
        "prom/prometheus:v3.13.3",
        "",
        "Image of Prometheus, such as a mirror's copy. Pulled if it is not there.",
        "Prometheus 的镜像,例如镜像站中的副本。本机没有则拉取。",
        form="name[:tag][@digest]",
        pattern=r"^[\w.:/@-]+$",
    )
    grafana_image: str = setting(
        "grafana/grafana:12.4.10",
        "",
        "Image of Grafana, such as a mirror's copy. Pulled if it is not there.",
        "Grafana 的镜像,例如镜像站中的副本。本机没有则拉取。",
        form="name[:tag][@digest]",
        pattern=r"^[\w.:/@-]+$",
    )
    alertmanager: str | None = setting(
        None,
        "",
        "Where an Alertmanager listens, as containers see this host; Prometheus sends it the alerts. Not set: none.",
        "Alertmanager 的监听地址(从容器访问本机的地址),Prometheus 向它发送告警。未设置时不发送。",
        form="host:port",
        pattern=r"^[\w.-]+:\d{1,5}$",
    )
    npu_exporter: str = setting(
        "172.17.0.1:8082",
        "",
        "Where MindCluster's NPU Exporter listens, as containers see this host. Asked where there are NPUs.",
        "MindCluster NPU Exporter 的监听地址(从容器访问本机的地址)。仅在有 NPU 时采集。",
        form="host:port",
        pattern=r"^[\w.-]+:\d{1,5}$",
    )


class NativeSettings(BaseSettings):
    """Handed on under the names in `exports`."""

    task_queue_enable: int = setting(
        1,
        "",
        "Operator queue of torch_npu: 0 off, 1 on, 2 prepares operators in the background too, for more peak memory.",
        "torch_npu 的算子下发队列:0 关闭,1 开启,2 另在后台准备算子,峰值内存更高。",
        exports="TASK_QUEUE_ENABLE",
        ge=0,
        le=2,
    )
    npu_alloc_conf: str | None = setting(
        None,
        "",
        "Options of torch_npu's memory allocator.",
        "torch_npu 内存分配器的选项。",
        exports="PYTORCH_NPU_ALLOC_CONF",
        form="option:value,…",
        pattern=r"^\w+:[^,\s]+(,\w+:[^,\s]+)*$",
    )
    cpu_affinity_conf: str | None = setting(
        None,
        "",
        "Binds torch_npu's threads to cores: 0 no, 1 coarsely, 2 finely; add force:1 under cgroup limits.",
        "torch_npu 线程绑核:0 不绑,1 粗粒度,2 细粒度;受 cgroup 限制时加 force:1。",
        exports="CPU_AFFINITY_CONF",
        form="0, 1, 2 or 2,option:value,…",
        pattern=r"^[012](,\w+:[\w-]+)*$",
    )
    omp_num_threads: int | None = setting(
        None,
        "threads",
        "CPU threads for one operator. Not set: as many as there are cores.",
        "单个算子使用的 CPU 线程数。未设置时与核数相同。",
        exports="OMP_NUM_THREADS",
        ge=1,
        le=1024,
    )
    op_cache_dir: Path | None = setting(
        None,
        "",
        "Where CANN keeps the operators it compiled. In a container, put it on a volume that is kept.",
        "CANN 保存已编译算子的目录。在容器中请放到持久卷上。",
        exports="ACL_OP_COMPILER_CACHE_DIR",
    )
    jit_compile: bool = setting(
        False,
        "",
        "Compile each operator for each new shape instead of using CANN's ready kernels. Slow where lengths vary.",
        "对每种新形状在线编译算子,而不用 CANN 自带的算子二进制。长度多变时很慢。",
    )
