"""Weights, and where they come from."""

from pathlib import Path
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from env.field import setting


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
