"""Whether others than this machine reach a server that asks for no key."""

from env.settings import Settings
from runtime.urls import is_loopback

ADVICE = "set ASR_API_KEY or ASR_KEYS_FILE; or ASR_HOST=127.0.0.1, behind a proxy that knows its callers"


def has_key(settings: Settings) -> bool:
    """Whether callers of /v1 need a key."""
    return bool(settings.api_key or settings.keys_file)


def warning(settings: Settings) -> str:
    """What an operator should know of who may use the server; empty where there is nothing."""
    if has_key(settings) or settings.vllm_alone or is_loopback(settings.host):
        return ""
    return f"listens on {settings.host} and asks for no key: whoever reaches it may use it → {ADVICE}"
