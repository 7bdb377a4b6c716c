"""vLLM alone in the container (ASR_VLLM_ALONE): what it goes with, whether it is ready, where it is."""

import contextlib
from http.client import HTTPException

from env.errors import UsageError
from env.field import variable
from env.settings import Settings
from runtime.host import local_client, npu_smi
from runtime.host.local_client import Health
from runtime.ops.deploy import monitoring, override
from runtime.urls import in_url, is_loopback, is_open

ALONE = variable("vllm_alone")
# What belongs to the API, and would be silently ignored. vLLM asks for a key of its own.
OF_THE_API = ("vllm_url", "api_key", "keys_file", "tls_cert_file")


def check(settings: Settings) -> None:
    """Raises UsageError where the settings ask for vLLM alone and for what does not go with it."""
    if not settings.vllm_alone:
        return
    if settings.stack != "vllm" or settings.engine_name != "vllm":
        reason = f"runs vLLM, and ASR_STACK is {settings.stack}, the engine {settings.engine_name}"
        unset = "; unset ASR_ENGINE" if settings.engine == "transformers" else ""
        raise UsageError(ALONE, reason, f"export ASR_STACK=vllm{unset}")
    for name in OF_THE_API:
        if getattr(settings, name):
            reason = f"runs vLLM without the API, to which {variable(name)} belongs"
            advice = "unset one of the two" + ("; vLLM asks for ASR_VLLM_KEY" if "key" in name else "")
            raise UsageError(ALONE, reason, advice)
    if monitoring.wanted(settings):
        reason = "runs vLLM without the server that Prometheus and Grafana know"
        raise UsageError(ALONE, reason, "make down, then make up without MONITORING=1")
    if len(npu_smi.npu_numbers(settings.npus)) > 1 or (settings.vllm_replicas or 1) > 1:
        asked = f"ASR_NPUS is {settings.npus}, ASR_VLLM_REPLICAS {settings.vllm_replicas or 'not set'}"
        reason = f"runs one vLLM on one NPU, and {asked}"
        raise UsageError(ALONE, reason, "make up for each NPU: ASR_NPUS=0 ASR_PORT=8101, ASR_NPUS=1 ASR_PORT=8102, …")


def ask_vllm(url: str) -> Health:
    """The health of the vLLM at `url`, which is on this machine: ready, or loading."""
    with (
        contextlib.suppress(OSError, HTTPException),
        local_client.opener().open(url + override.VLLM_HEALTH, timeout=local_client.HEALTH_TIMEOUT),
    ):
        return Health("ready", "ready")
    return Health("starting", "loading")


def address(settings: Settings) -> str:
    """What to set where the servers are that shall use it."""
    name = "HOST" if is_open(settings.host) else in_url(settings.host)
    return f"ASR_ENGINE=vllm ASR_VLLM_URL=http://{name}:{settings.port}"


def warning(settings: Settings) -> str:
    """What an operator should know of who may use it; empty where there is nothing."""
    if settings.vllm_key or is_loopback(settings.host):
        return ""
    return f"vllm: asks for no key, and listens on {settings.host} → set ASR_VLLM_KEY on both sides"
