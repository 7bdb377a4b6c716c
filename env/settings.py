"""Every setting of the kit, in one class. `env.loading` finds the values."""

from pathlib import Path
from typing import Literal

from pydantic import PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source

from env.field import PREFIX, setting

DEMO = "demo"  # ASR_MODEL for the embedded model


class Settings(BaseSettings):
    """What an operator can set, as `load_settings` found it. Relative paths start at the project's root."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    profile: str = setting(
        "cpu",
        "",
        "Ready settings for a kind of host: a file in env/profiles. Not set: make up takes the one that fits the host.",
        "某类主机的现成配置,即 env/profiles 中的一个文件。未设置时 make up 选用与主机相符的配置。",
    )
    stack: Literal["npu", "vllm", "cpu"] = setting(
        "cpu",
        "",
        "What the image is built from: a stack of env/stacks.toml.",
        "镜像所用的软件栈,见 env/stacks.toml。",
    )
    model: str = setting(
        DEMO,
        "",
        "Directory of a Qwen3-ASR checkpoint, or demo: the embedded demo model.",
        "Qwen3-ASR 权重目录;demo 为内置演示模型。",
        form="demo, path",
    )
    device: str = setting(
        "auto",
        "",
        "Where the model runs. auto is an NPU if one can be used, else the CPU.",
        "模型运行的设备。auto:有可用的 NPU 就用 NPU,否则用 CPU。",
        form="auto, cpu, npu, npu:N",
        pattern=r"^(auto|cpu|npu(:\d{1,3})?)$",
    )
    dtype: Literal["bfloat16", "float16", "float32"] = setting(
        "float32",
        "",
        "Number format of weights and activations. The 310P of an Atlas 300I Duo has no bfloat16.",
        "权重和激活的数值格式。Atlas 300I Duo 的 310P 不支持 bfloat16。",
    )
    max_batch: int = setting(
        8, "utterances", "Most utterances decoded together.", "一起解码的语音段数上限。", ge=1, le=256
    )
    max_new_tokens: int = setting(
        512,
        "tokens",
        "Most tokens decoded for one segment. A segment that reaches them is reported as cut.",
        "每个语音段解码的 token 数上限。达到上限的段会在结果中注明被截断。",
        ge=1,
        le=8192,
    )
    segment_seconds: float = setting(
        30,
        "s",
        "Longest segment that audio is cut into, at quiet places. The model takes up to 1200 s, but the cost of its "
        "audio encoder grows with the square of a segment's length.",
        "音频在安静处切分,此为每段的最大长度。模型最长支持 1200 s,但音频编码器的开销随段长的平方增长。",
        ge=1,
        le=1200,
    )
    max_audio_seconds: float = setting(14400, "s", "Longest audio accepted.", "可接受的最长音频。", ge=1, le=86400)
    url_timeout_seconds: float = setting(
        60, "s", "Longest time to fetch audio from a URL.", "从 URL 获取音频的最长时间。", ge=1, le=3600
    )
    url_max_mib: int = setting(
        512, "MiB", "Largest audio fetched from a URL.", "从 URL 获取的音频的最大体积。", ge=1, le=65536
    )
    allow_private_urls: bool = setting(
        False,
        "",
        "Fetch audio from private, loopback and link-local addresses too.",
        "是否也允许从私有、回环和链路本地地址获取音频。",
    )
    out_dir: Path = setting("out", "", "Where reports and transcripts are written.", "报告和转写结果的输出目录。")

    # Weights, and where they come from.
    hub: Literal["modelscope", "huggingface", "git-lfs", "http"] = setting(
        "modelscope",
        "",
        "Where fetch-weights gets the weights: a hub, a git-lfs mirror such as GitCode, or plain files over HTTP.",
        "fetch-weights 的下载来源:模型社区、git-lfs 镜像(如 GitCode)或普通 HTTP 文件服务器。",
    )
    hub_endpoint: str | None = setting(
        None,
        "",
        "Address of a mirror of the hub. git-lfs and http need one, up to the folder that holds the repository's name.",
        "模型社区镜像的地址。git-lfs 和 http 必须设置,写到仓库名的上一级目录为止。",
        form="http(s) address",
        pattern=r"^https?://\S+$",
    )
    hub_repo: str = setting(
        "Qwen/Qwen3-ASR-1.7B",
        "",
        "The model's name on the hub.",
        "模型在社区中的名称。",
        form="owner/name",
        pattern=r"^[\w.-]+/[\w.-]+$",
    )
    hub_revision: str | None = setting(
        None,
        "",
        "Commit, tag or branch. Not set: the one in weights.lock, else the one that env/weights.toml pins.",
        "提交、标签或分支。未设置时取 weights.lock 中的记录,否则取 env/weights.toml 锁定的版本。",
        pattern=r"^[\w./-]+$",
    )
    hub_token: SecretStr | None = setting(None, "", "Access token of the hub.", "模型社区的访问令牌。")
    hub_workers: int = setting(4, "files", "Files fetched at the same time.", "同时下载的文件数。", ge=1, le=16)
    weights_lock: Path = setting(
        "weights/weights.lock",
        "",
        "What the weights must be, file by file. Written by the first fetch; hand it over with the weights.",
        "逐个文件记录权重应有的内容。首次下载时写入;移交权重时请一并移交。",
    )
    allow_unverified_weights: bool = setting(
        False,
        "",
        "Start although the weights are not what weights.lock says, or are not in it.",
        "即使权重与 weights.lock 不符或未被记录,也允许启动。",
    )

    # The container, and what it may use of the host.
    host: str = setting(
        "127.0.0.1",
        "",
        "Address on which the server listens. 0.0.0.0 opens it to other hosts, to anyone who reaches it.",
        "服务监听的地址。0.0.0.0 表示对其他主机开放,任何能连通的人都可访问。",
        form="IPv4 address",
        pattern=r"^\d{1,3}(\.\d{1,3}){3}$",
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

    # What torch_npu, CANN and OpenMP read from the environment, once, when they load.
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

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings hands it over by name
        init_settings: Source,
        *_others: Source,
        **_named: Source,
    ) -> tuple[Source, ...]:
        """Only what `load_settings` hands over: it reads the sources, to be able to say where each value came from."""
        return (init_settings,)

    def origin(self, name: str) -> str:
        """Where field `name` has its value from: `environment`, with the variable if not ASR_…, a file or `default`."""
        return self._origins.get(name, "default")
