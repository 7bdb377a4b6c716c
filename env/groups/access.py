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
        "调用 /v1 所需的唯一密钥;指标、健康检查与网页始终开放。未设置时见 ASR_KEYS_FILE。",
        form="8 characters or more",
        min_length=LEAST_LETTERS,
    )
    keys_file: Path | None = setting(
        None,
        "",
        "File of the keys that callers need, one `name:key` a line; `per_minute=N`, `at_once=N` and `sessions=N` "
        "behind a key are limits of its own. Not set: no key is needed.",
        "调用方密钥文件,每行一个 `名称:密钥`;其后可用 `per_minute=N`、`at_once=N` 与 `sessions=N` 单独限流。"
        "未设置时不需要密钥。",
    )
    admin_key: SecretStr | None = setting(
        None,
        "",
        "Key that admin calls need. Not set: they are answered to this machine alone; behind a proxy, set it.",
        "管理调用所需的密钥。未设置时仅限本机调用;位于代理之后时请设置。",
        form="8 characters or more",
        min_length=LEAST_LETTERS,
    )
    admin_key_file: Path | None = setting(
        None,
        "",
        "File that holds the admin key, instead of ASR_ADMIN_KEY; it can be replaced while the server runs.",
        "存放管理密钥的文件,代替 ASR_ADMIN_KEY;服务运行中可随时更换。",
    )
    requests_per_minute: int | None = setting(
        None,
        "requests",
        "Most requests within any minute, of each key, or of each address if no key is needed. Not set: any number.",
        "每个密钥(无需密钥时为每个地址)任意一分钟内的请求数上限。未设置时不限。",
        ge=1,
        le=1_000_000,
    )
    requests_at_once: int | None = setting(
        None,
        "requests",
        "Most requests at once, of each key, or of each address if no key is needed. Not set: half of ASR_MAX_WAITING, "
        "if that is 16 or more.",
        "每个密钥(无需密钥时为每个地址)同时进行的请求数上限。未设置时为 ASR_MAX_WAITING 的一半;ASR_MAX_WAITING 小于 16 "
        "时不限。",
        ge=1,
        le=100_000,
    )
    sessions_at_once: int | None = setting(
        None,
        "sessions",
        "Most realtime sessions at once, of each key, or of each address if no key is needed. Not set: the limit of "
        "requests at once where one is set, otherwise half of ASR_MAX_SESSIONS, if that is 16 or more.",
        "每个密钥(无需密钥时为每个地址)同时打开的实时会话数上限。未设置时与已设置的并发请求数上限相同;后者也未设置时为 "
        "ASR_MAX_SESSIONS 的一半,ASR_MAX_SESSIONS 小于 16 时不限。",
        ge=1,
        le=100_000,
    )
    cors_origins: str | None = setting(
        None,
        "",
        "Whose pages may use the server from a browser, beside its own. Not set: no others.",
        "除自带网页外,允许哪些来源的网页在浏览器中调用。未设置时均不允许。",
        form="origins with commas between, or *",
        pattern=rf"^(\*|{ORIGIN}(, *{ORIGIN})*)$",
    )
    allowed_hosts: str | None = setting(
        None,
        "",
        "Further names by which the server may be asked where no key is needed, such as that of a proxy in front. "
        "Addresses, names without a dot, and this machine's own always may.",
        "无需密钥时,允许用来访问服务的其他主机名,例如前置代理的域名。IP 地址、不含点的名称和本机名称始终可用。",
        form="names with commas between, or *",
        pattern=rf"^(\*|{NAME}(, *{NAME})*)$",
    )
    tls_cert_file: Path | None = setting(
        None,
        "",
        "Certificate to answer https with, PEM, those between it and the root below it. Not set: http.",
        "提供 https 的证书,PEM 格式,中间证书附在其后。未设置时为 http。",
    )
    tls_key_file: Path | None = setting(
        None,
        "",
        "The certificate's private key, PEM, not encrypted.",
        "证书的私钥,PEM 格式,不加密。",
    )
