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
        form="name,name…",
        pattern=r"^[^\s,]+(,[^\s,]+)*$",
    )
    batch_wait_ms: int = setting(
        5,
        "ms",
        "Longest wait of a lone utterance for others to be decoded with, in the engine transformers.",
        ge=0,
        le=1000,
    )
    batch_audio_seconds: float = setting(
        480,
        "s",
        "Most audio that the engine transformers decodes together, each utterance counted as the longest of its batch.",
        ge=1,
        le=86400,
    )
    max_waiting: int = setting(
        500,
        "requests",
        "Most requests that wait or are worked on; more are refused with 429. Realtime sessions count apart.",
        ge=1,
        le=100_000,
    )
    max_sessions: int = setting(
        500,
        "sessions",
        "Most realtime sessions that are open; more are refused with 429.",
        ge=1,
        le=100_000,
    )
    session_idle_seconds: float = setting(
        120,
        "s",
        "A realtime session that has sent no audio yet, nor anything else for so long, is ended. Once it has, "
        "ASR_REQUEST_TIMEOUT_SECONDS counts, as it does here if it is shorter.",
        ge=1,
        le=86400,
    )
    request_timeout_seconds: float = setting(
        600,
        "s",
        "Longest time for one request; then it is answered with 504. A realtime session idle for so long is ended.",
        ge=1,
        le=86400,
    )
    upload_max_mib: int = setting(
        512,
        "MiB",
        "Largest upload; larger ones are refused with 413. Also the most that transcribe reads from a pipe.",
        ge=1,
        le=65536,
    )
    spool_max_mib: int | None = setting(
        None,
        "MiB",
        "Most that uploads and fetched audio take on disk together, those of one caller at most half of it, or the "
        "largest; more is refused with 507. Not set: three times the largest.",
        ge=1,
        le=1 << 20,
    )
    drain_seconds: float = setting(
        110,
        "s",
        "Longest time to answer what was accepted when the server stops.",
        ge=0,
        le=3600,
    )


class ObservingSettings(BaseSettings):
    """Logs."""

    log_format: Literal["human", "json"] = setting(
        "human",
        "",
        "Form of the server's log: lines for people, or one JSON object a line.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        "",
        "Least weight of what is logged. debug has health checks too.",
    )
    log_max_mib: int = setting(
        20,
        "MiB",
        "Size at which the log of `invoke start` is put aside and begun anew. A container's log is Docker's; so "
        "much of its end is kept in out/logs when the container is removed.",
        ge=1,
        le=65536,
    )
    log_files: int = setting(
        5,
        "files",
        "Logs of `invoke start` that are kept, the one that is written to included; likewise of removed containers.",
        ge=1,
        le=1000,
    )
    log_content: bool = setting(
        False,
        "",
        "Log transcripts, contexts, file names and URLs too, which are private. Audio is never logged.",
    )
