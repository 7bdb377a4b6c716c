"""What is transcribed, and with what."""

from pathlib import Path
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from env.field import setting

DEMO = "demo"  # ASR_MODEL for the embedded model

EngineName = Literal["transformers", "vllm"]


class ModelSettings(BaseSettings):
    """The model, its device, and the audio that it is given."""

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
    engine: EngineName | None = setting(
        None,
        "",
        "What decodes: transformers, as validated on an NPU, or vllm, for throughput. Not set: vllm where ASR_STACK is "
        "vllm, else transformers.",
        "解码引擎:transformers 已在 NPU 上验证;vllm 吞吐量更高。未设置时按 ASR_STACK 选用。",
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
        8,
        "utterances",
        "Most utterances that the engine transformers decodes together.",
        "transformers 引擎一起解码的语音段数上限。",
        ge=1,
        le=256,
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


class WeightsSettings(BaseSettings):
    """The hub, and what weights must be."""

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
