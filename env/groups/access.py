"""Who may ask the server, how much, and over what connection."""

from pathlib import Path

from pydantic_settings import BaseSettings

from env.field import setting


class AccessSettings(BaseSettings):
    """Keys."""

    keys_file: Path | None = setting(
        None,
        "",
        "File of the keys that callers need, one `name:key` a line. Not set: no key is needed.",
        "调用方密钥文件,每行一个 `名称:密钥`。未设置时不需要密钥。",
    )
