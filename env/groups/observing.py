"""What the server tells of its work."""

from typing import Literal

from pydantic_settings import BaseSettings

from env.field import setting


class ObservingSettings(BaseSettings):
    """Logs."""

    log_format: Literal["human", "json"] = setting(
        "human",
        "",
        "Form of the server's log: lines for people, or one JSON object a line.",
        "服务日志的格式:供人阅读的文本行,或每行一个 JSON 对象。",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        "",
        "Least weight of what is logged. debug has health checks too.",
        "记录的最低日志级别。debug 包括健康检查请求。",
    )
    log_content: bool = setting(
        False,
        "",
        "Log transcripts, contexts, file names and URLs too, which are private. Audio is never logged.",
        "日志中是否记录转写文本、上下文、文件名和 URL 等隐私内容。音频从不记录。",
    )
