"""The engine vllm: which servers decode, and how those that it starts are set up."""

import math
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from env.field import setting

TOKENS_PER_SECOND = 13  # of audio: Qwen3-ASR's encoder makes 13 of 100 frames of 10 ms
TEMPLATE_TOKENS = 28  # of a prompt without a context: a dozen, and a forced language
HOTWORD_TOKENS = 100  # for which there is room in any case
PROMPT_TOKENS = TEMPLATE_TOKENS + HOTWORD_TOKENS


def segment_tokens(seconds: float, answer: int) -> int:
    """Most tokens that a segment of so many seconds takes, prompt and an answer of so many tokens included."""
    return math.ceil(seconds * TOKENS_PER_SECOND) + PROMPT_TOKENS + answer


class VllmSettings(BaseSettings):
    """Count only where the engine is vllm."""

    vllm_url: str | None = setting(
        None,
        "",
        "vLLM servers that run already, anywhere, to use instead of starting one. `invoke vllm` starts such a server.",
        form="http://host:port,…",
        pattern=r"^https?://[^\s,]+(,https?://[^\s,]+)*$",
    )
    vllm_alone: bool = setting(
        False,
        "",
        "make up runs vLLM alone, without the API and its page: for servers elsewhere that name it in ASR_VLLM_URL.",
    )
    vllm_key: SecretStr | None = setting(None, "", "Key that these servers ask for (vLLM's --api-key).")
    vllm_python: Path | None = setting(
        None,
        "",
        "Python that has vLLM. Not set: the one that runs the kit.",
    )
    vllm_replicas: int | None = setting(
        None,
        "servers",
        "vLLM servers to start, each on an NPU of its own. Not set: one for each NPU of ASR_NPUS, or one on a CPU.",
        ge=1,
        le=64,
    )
    vllm_max_model_len: int = setting(
        4096,
        "tokens",
        "Most tokens of one segment, prompt, audio (13 per second) and answer together.",
        ge=256,
        le=65536,
    )
    vllm_max_seqs: int = setting(
        64,
        "utterances",
        "Most utterances that a server decodes together.",
        ge=1,
        le=1024,
    )
    vllm_memory_share: float = setting(
        0.9,
        "",
        "Share of an NPU's memory that vLLM takes, weights and KV cache together.",
        ge=0.05,
        le=0.98,
    )
    vllm_eager: bool = setting(
        True,
        "",
        "Launch operators one by one. False records graphs, which launch faster, start slowly and want a new driver.",
    )
    vllm_start_seconds: float = setting(900, "s", "Longest time for vLLM to become ready.", ge=10, le=7200)
    vllm_flags: str | None = setting(
        None,
        "",
        "Further flags of `vllm serve`, as on a command line.",
        form="--flag value …",
    )
