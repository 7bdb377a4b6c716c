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
    log_max_mib: int = setting(
        20,
        "MiB",
        "Size at which the log of `invoke start` is put aside and begun anew. A container's log is Docker's; so "
        "much of its end is kept in out/logs when the container is removed.",
        "`invoke start` 的日志达到此大小即轮转。容器的日志由 Docker 管理,删除容器时其末尾至多这么多存入 out/logs。",
        ge=1,
        le=65536,
    )
    log_files: int = setting(
        5,
        "files",
        "Logs of `invoke start` that are kept, the one that is written to included; likewise of removed containers.",
        "`invoke start` 保留的日志文件数,含正在写入的文件;已删除的容器同样保留这么多份。",
        ge=1,
        le=1000,
    )
    log_content: bool = setting(
        False,
        "",
        "Log transcripts, contexts, file names and URLs too, which are private. Audio is never logged.",
        "日志中是否记录转写文本、上下文、文件名和 URL 等隐私内容。音频从不记录。",
    )
