"""Who may ask the server, how much, and over what connection."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from env.field import setting

# Shorter ones can be guessed, and are not masked in support bundles.
LEAST_LETTERS = 8
NAME = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"
ORIGIN = r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"


class AccessSettings(BaseSettings):
    """Keys, limits of each caller, browsers, TLS."""

    api_key: SecretStr | None = setting(
        None,
        "",
        "The one key that callers of /v1 need; metrics, health and pages stay open. Not set: see ASR_KEYS_FILE.",
        form="8 characters or more",
        min_length=LEAST_LETTERS,
    )
    keys_file: Path | None = setting(
        None,
        "",
        "File of the keys that callers need, one `name:key` a line; `per_minute=N`, `at_once=N` and `sessions=N` "
        "behind a key are limits of its own. Not set: no key is needed.",
    )
    admin_key: SecretStr | None = setting(
        None,
        "",
        "Key that admin calls need. Not set: they are answered to this machine alone; behind a proxy, set it.",
        form="8 characters or more",
        min_length=LEAST_LETTERS,
    )
    admin_key_file: Path | None = setting(
        None,
        "",
        "File that holds the admin key, instead of ASR_ADMIN_KEY; it can be replaced while the server runs.",
    )
    requests_per_minute: int | None = setting(
        None,
        "requests",
        "Most requests within any minute, of each key, or of each address if no key is needed. Not set: any number.",
        ge=1,
        le=1_000_000,
    )
    requests_at_once: int | None = setting(
        None,
        "requests",
        "Most requests at once, of each key, or of each address if no key is needed. Not set: half of ASR_MAX_WAITING, "
        "if that is 16 or more.",
        ge=1,
        le=100_000,
    )
    sessions_at_once: int | None = setting(
        None,
        "sessions",
        "Most realtime sessions at once, of each key, or of each address if no key is needed. Not set: the limit of "
        "requests at once where one is set, otherwise half of ASR_MAX_SESSIONS, if that is 16 or more.",
        ge=1,
        le=100_000,
    )
    cors_origins: str | None = setting(
        None,
        "",
        "Whose pages may use the server from a browser, beside its own. Not set: no others.",
        form="origins with commas between, or *",
        pattern=rf"^(\*|{ORIGIN}(, *{ORIGIN})*)$",
    )
    allowed_hosts: str | None = setting(
        None,
        "",
        "Further names by which the server may be asked where no key is needed, such as that of a proxy in front. "
        "Addresses, names without a dot, and this machine's own always may.",
        form="names with commas between, or *",
        pattern=rf"^(\*|{NAME}(, *{NAME})*)$",
    )
    tls_cert_file: Path | None = setting(
        None,
        "",
        "Certificate to answer https with, PEM, those between it and the root below it. Not set: http.",
    )
    tls_key_file: Path | None = setting(
        None,
        "",
        "The certificate's private key, PEM, not encrypted.",
    )
