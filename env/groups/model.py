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
    )
    stack: Literal["npu", "vllm", "cpu"] = setting(
        "cpu",
        "",
        "What the image is built from: a stack of env/stacks.toml.",
    )
    model: str = setting(
        DEMO,
        "",
        "Directory of a Qwen3-ASR checkpoint, or demo: the embedded demo model.",
        form="demo, path",
    )
    engine: EngineName | None = setting(
        None,
        "",
        "What decodes: transformers, as validated on an NPU, or vllm, for throughput. Not set: vllm where ASR_STACK is "
        "vllm, else transformers.",
    )
    device: str = setting(
        "auto",
        "",
        "Where the model runs. auto is an NPU if one can be used, else the CPU.",
        form="auto, cpu, npu, npu:N",
        pattern=r"^(auto|cpu|npu(:\d{1,3})?)$",
    )
    dtype: Literal["bfloat16", "float16", "float32"] = setting(
        "float32",
        "",
        "Number format of weights and activations. The 310P of an Atlas 300I Duo has no bfloat16.",
    )
    max_batch: int = setting(
        8,
        "utterances",
        "Most utterances that the engine transformers decodes together.",
        ge=1,
        le=256,
    )
    max_new_tokens: int = setting(
        512,
        "tokens",
        "Most tokens decoded for one segment. A segment that reaches them is reported as cut.",
        ge=1,
        le=8192,
    )
    segment_seconds: float = setting(
        30,
        "s",
        "Longest segment that audio is cut into, at quiet places. The model takes up to 1200 s, but the cost of its "
        "audio encoder grows with the square of a segment's length.",
        ge=1,
        le=1200,
    )
    max_audio_seconds: float = setting(14400, "s", "Longest audio accepted.", ge=1, le=86400)
    url_timeout_seconds: float = setting(60, "s", "Longest time to fetch audio from a URL.", ge=1, le=3600)
    url_max_mib: int = setting(512, "MiB", "Largest audio fetched from a URL.", ge=1, le=65536)
    allow_private_urls: bool = setting(
        False,
        "",
        "Fetch audio from private, loopback and link-local addresses too.",
    )
    out_dir: Path = setting("out", "", "Where reports and transcripts are written.")


class WeightsSettings(BaseSettings):
    """The hub, and what weights must be."""

    hub: Literal["modelscope", "huggingface", "git-lfs", "http"] = setting(
        "modelscope",
        "",
        "Where fetch-weights gets the weights: a hub, a git-lfs mirror such as GitCode, or plain files over HTTP.",
    )
    hub_endpoint: str | None = setting(
        None,
        "",
        "Address of a mirror of the hub. git-lfs and http need one, up to the folder that holds the repository's name.",
        form="http(s) address",
        pattern=r"^https?://\S+$",
    )
    hub_repo: str = setting(
        "Qwen/Qwen3-ASR-1.7B",
        "",
        "The model's name on the hub.",
        form="owner/name",
        pattern=r"^[\w.-]+/[\w.-]+$",
    )
    hub_revision: str | None = setting(
        None,
        "",
        "Commit, tag or branch. Not set: the one in weights.lock, else the one that env/weights.toml pins.",
        pattern=r"^[\w./-]+$",
    )
    hub_token: SecretStr | None = setting(None, "", "Access token of the hub.")
    hub_workers: int = setting(4, "files", "Files fetched at the same time.", ge=1, le=16)
    weights_lock: Path = setting(
        "weights/weights.lock",
        "",
        "What the weights must be, file by file. Written by the first fetch; hand it over with the weights.",
    )
    allow_unverified_weights: bool = setting(
        False,
        "",
        "Start although the weights are not what weights.lock says, or are not in it.",
    )
