"""The addresses of ASR_VLLM_URL, and whose certificates are trusted there, for the engine and for the doctor."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from env.errors import UsageError
from env.field import variable
from env.settings import Settings

pass
import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from env.errors import UsageError
from env.field import variable
from env.settings import Settings
from runtime.listen_address import local_name

TRUST = "REQUESTS_CA_BUNDLE"  # the variable of the client that fetches weights, so that one names a house's authority
PLACE = re.compile(r"([\w.-]+|\[[\da-f:.]+\])(:\d+)?", re.IGNORECASE)  # host, or an IPv6 address, and port
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # in OpenSSL's errors
HOW_TO_TRUST = f"{TRUST}=FILE names a certificate to trust; for a container, put it into docker/certificates"


def vllm_servers(settings: Settings) -> list[str]:
    """Each server's address, without the /v1 that OpenAI's clients want at its end; none if ASR_VLLM_URL is not set.
    Raises UsageError where one cannot be used."""
    urls = [_address(url) for url in settings.vllm_url.split(",")] if settings.vllm_url else []
    for url in urls:
        if urls.count(url) > 1:
            raise UsageError(variable("vllm_url"), f"names {url} twice", "name each server once")
    return urls


def authorities() -> str | None:
    """The file of certificates to trust instead of the system's, None if none is named. Raises UsageError where it
    cannot be read."""
    path = os.environ.get(TRUST)
    if path and not Path(path).is_file():
        raise UsageError(TRUST, f"{path} is no file", "name a file of certificates, PEM")
    return path or None


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(variable("vllm_url"), f"{shown(url)}: no address: {error}", "http://host:port") from None
    if parts.query or parts.fragment or not PLACE.fullmatch(parts.netloc):
        advice = f"put the key into {variable('vllm_key')}" if parts.username is not None else "http://host:port"
        raise UsageError(variable("vllm_url"), f"{shown(url)}: expected host and port, no more", advice)
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def url(settings: Settings) -> str:
    """Where the server answers, as seen from this host."""
    scheme = "https" if settings.tls_cert_file else "http"
    return f"{scheme}://{local_name(settings.host)}:{settings.port}"


def shown(url: str) -> str:
    """The URL as errors and logs may show it: without credentials, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "…" if parts.query else "", ""))
