"""The server: how much it accepts, how long it waits."""

from typing import Literal

from pydantic_settings import BaseSettings

from env.field import setting


class ServerSettings(BaseSettings):
    """What it answers to, and load."""

    model_aliases: str | None = setting(
        None,
        "",
        "Further names that requests may call the model, beside its own, its name on the hub, qwen3-asr and OpenAI's.",
        "请求中可使用的其他模型名。模型自身的名称、在模型站的名称、qwen3-asr 与 OpenAI 的名称始终可用。",
        form="name,name…",
        pattern=r"^[^\s,]+(,[^\s,]+)*$",
    )
    batch_wait_ms: int = setting(
        5,
        "ms",
        "Longest wait of a lone utterance for others to be decoded with, in the engine transformers.",
        "transformers 引擎中单个语音段等待与其他段合批的最长时间。",
        ge=0,
        le=1000,
    )
    batch_audio_seconds: float = setting(
        480,
        "s",
        "Most audio that the engine transformers decodes together, each utterance counted as the longest of its batch.",
        "transformers 引擎一起解码的音频总长上限,批内每段均按最长的一段计。",
        ge=1,
        le=86400,
    )
    max_waiting: int = setting(
        500,
        "requests",
        "Most requests that wait or are worked on; more are refused with 429. Realtime sessions count apart.",
        "等待与处理中的请求数上限,超出的以 429 拒绝。实时会话单独计数。",
        ge=1,
        le=100_000,
    )
    max_sessions: int = setting(
        500,
        "sessions",
        "Most realtime sessions that are open; more are refused with 429.",
        "同时打开的实时会话数上限,超出的以 429 拒绝。",
        ge=1,
        le=100_000,
    )
    session_idle_seconds: float = setting(
        120,
        "s",
        "A realtime session that has sent no audio yet, nor anything else for so long, is ended. Once it has, "
        "ASR_REQUEST_TIMEOUT_SECONDS counts, as it does here if it is shorter.",
        "尚未送来音频的实时会话空闲超过此时间即结束。送来音频之后,或 ASR_REQUEST_TIMEOUT_SECONDS 更短时,以后者为准。",
        ge=1,
        le=86400,
    )
    request_timeout_seconds: float = setting(
        600,
        "s",
        "Longest time for one request; then it is answered with 504. A realtime session idle for so long is ended.",
        "单个请求的最长时间,超时以 504 应答。实时会话空闲超过此时间即结束。",
        ge=1,
        le=86400,
    )
    upload_max_mib: int = setting(
        512,
        "MiB",
        "Largest upload; larger ones are refused with 413. Also the most that transcribe reads from a pipe.",
        "上传的最大体积,超出的以 413 拒绝;也是 transcribe 从管道读取的上限。",
        ge=1,
        le=65536,
    )
    spool_max_mib: int | None = setting(
        None,
        "MiB",
        "Most that uploads and fetched audio take on disk together, those of one caller at most half of it, or the "
        "largest; more is refused with 507. Not set: three times the largest.",
        "所有上传以及从 URL 获取的音频合计占用磁盘的上限,同一调用方最多占一半(至少为单个最大体积),超出的以 507 拒绝。"
        "未设置时为单个最大体积的三倍。",
        ge=1,
        le=1 << 20,
    )
    drain_seconds: float = setting(
        110,
        "s",
        "Longest time to answer what was accepted when the server stops.",
        "停止服务时答复已接受请求的最长时间。",
        ge=0,
        le=3600,
    )


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
