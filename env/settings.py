"""Every setting of the kit, in one class.

A value comes from the first of these that has one:

1. the variable `ASR_…` in the environment,
2. for a setting that the kit hands on to torch_npu, CANN or OpenMP: their own variable in the environment,
3. the profile `env/profiles/<ASR_PROFILE>.env`,
4. the default.

A variable that is set but empty counts as not set: compose files pass on what the host does not know as empty.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import Field, JsonValue, PrivateAttr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source

from env.allowed import allowed, is_secret
from runtime.errors import UsageError

PREFIX = "ASR_"
PROJECT = Path(__file__).resolve().parent.parent
PROFILES = PROJECT / "env" / "profiles"


class SettingsError(UsageError):
    """A setting that does not exist, or a value that it cannot have. `subject` is the variable."""


def setting(
    default: Any, unit: str, description: str, chinese: str, *, exports: str = "", form: str = "", **bounds: Any
) -> Any:
    """A field of `Settings`.

    `exports` names the variable that carries the value to torch_npu, CANN or OpenMP; `form` says what is allowed
    where the type does not; `bounds` are pydantic's: ge, le, pattern.
    """
    notes: dict[str, JsonValue] = {"unit": unit, "chinese": chinese, "exports": exports, "form": form}
    return Field(default, description=description, json_schema_extra=notes, **bounds)


class Settings(BaseSettings):
    """What an operator can set, as `load_settings` found it. Relative paths start at the project's root."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    profile: str = setting(
        "cpu",
        "",
        "Ready settings for a kind of host: a file in env/profiles. Read from the environment only.",
        "某类主机的现成配置,即 env/profiles 中的一个文件。只从环境变量读取。",
    )
    model: str = setting(
        "demo",
        "",
        "Directory of a Qwen3-ASR checkpoint, or demo: the embedded demo model.",
        "Qwen3-ASR 权重目录;demo 为内置演示模型。",
        form="demo, path",
    )
    device: str = setting(
        "auto",
        "",
        "Where the model runs. auto is an NPU if one can be used, else the CPU.",
        "模型运行的设备。auto:有可用的 NPU 就用 NPU,否则用 CPU。",
        form="auto, cpu, npu, npu:N",
        pattern=r"^(auto|cpu|npu(:\d{1,3})?)$",
    )
    dtype: Literal["bfloat16", "float16", "float32"] = setting(
        "float32",
        "",
        "Number format of weights and activations. The 310P of an Atlas 300I Duo has no bfloat16.",
        "权重和激活的数值格式。Atlas 300I Duo 的 310P 不支持 bfloat16。",
    )
    max_batch: int = setting(
        8, "utterances", "Most utterances decoded together.", "一起解码的语音段数上限。", ge=1, le=256
    )
    max_new_tokens: int = setting(
        512,
        "tokens",
        "Most tokens decoded for one segment. A segment that reaches them is reported as cut.",
        "每个语音段解码的 token 数上限。达到上限的段会在结果中注明被截断。",
        ge=1,
        le=8192,
    )
    segment_seconds: float = setting(
        30,
        "s",
        "Longest segment that audio is cut into, at quiet places. The model takes up to 1200 s, but the cost of its "
        "audio encoder grows with the square of a segment's length.",
        "音频在安静处切分,此为每段的最大长度。模型最长支持 1200 s,但音频编码器的开销随段长的平方增长。",
        ge=1,
        le=1200,
    )
    max_audio_seconds: float = setting(14400, "s", "Longest audio accepted.", "可接受的最长音频。", ge=1, le=86400)
    url_timeout_seconds: float = setting(
        60, "s", "Longest time to fetch audio from a URL.", "从 URL 获取音频的最长时间。", ge=1, le=3600
    )
    url_max_mib: int = setting(
        512, "MiB", "Largest audio fetched from a URL.", "从 URL 获取的音频的最大体积。", ge=1, le=65536
    )
    allow_private_urls: bool = setting(
        False,
        "",
        "Fetch audio from private, loopback and link-local addresses too.",
        "是否也允许从私有、回环和链路本地地址获取音频。",
    )
    out_dir: Path = setting("out", "", "Where reports and transcripts are written.", "报告和转写结果的输出目录。")

    # What torch_npu, CANN and OpenMP read from the environment, once, when they load.
    task_queue_enable: int = setting(
        1,
        "",
        "Operator queue of torch_npu: 0 off, 1 on, 2 prepares operators in the background too, for more peak memory.",
        "torch_npu 的算子下发队列:0 关闭,1 开启,2 另在后台准备算子,峰值内存更高。",
        exports="TASK_QUEUE_ENABLE",
        ge=0,
        le=2,
    )
    npu_alloc_conf: str | None = setting(
        None,
        "",
        "Options of torch_npu's memory allocator.",
        "torch_npu 内存分配器的选项。",
        exports="PYTORCH_NPU_ALLOC_CONF",
        form="option:value,…",
        pattern=r"^\w+:[^,\s]+(,\w+:[^,\s]+)*$",
    )
    cpu_affinity_conf: str | None = setting(
        None,
        "",
        "Binds torch_npu's threads to cores: 0 no, 1 coarsely, 2 finely; add force:1 under cgroup limits.",
        "torch_npu 线程绑核:0 不绑,1 粗粒度,2 细粒度;受 cgroup 限制时加 force:1。",
        exports="CPU_AFFINITY_CONF",
        form="0, 1, 2 or 2,option:value,…",
        pattern=r"^[012](,\w+:[\w-]+)*$",
    )
    omp_num_threads: int | None = setting(
        None,
        "threads",
        "CPU threads for one operator. Not set: as many as there are cores.",
        "单个算子使用的 CPU 线程数。未设置时与核数相同。",
        exports="OMP_NUM_THREADS",
        ge=1,
        le=1024,
    )
    op_cache_dir: Path | None = setting(
        None,
        "",
        "Where CANN keeps the operators it compiled. In a container, put it on a volume that is kept.",
        "CANN 保存已编译算子的目录。在容器中请放到持久卷上。",
        exports="ACL_OP_COMPILER_CACHE_DIR",
    )
    jit_compile: bool = setting(
        False,
        "",
        "Compile each operator for each new shape instead of using CANN's ready kernels. Slow where lengths vary.",
        "对每种新形状在线编译算子,而不用 CANN 自带的算子二进制。长度多变时很慢。",
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings hands it over by name
        init_settings: Source,
        *_others: Source,
        **_named: Source,
    ) -> tuple[Source, ...]:
        """Only what `load_settings` hands over: it reads the sources, to be able to say where each value came from."""
        return (init_settings,)

    def origin(self, name: str) -> str:
        """Where field `name` has its value from: `environment`, with the variable if not ASR_…, a file or `default`."""
        return self._origins.get(name, "default")


def load_settings(environment: Mapping[str, str] = os.environ, *, kind: type[Settings] = Settings) -> Settings:
    """The settings in force, as an instance of `kind`; the module's docstring lists the sources.

    Raises SettingsError for a profile that does not exist, an `ASR_` variable that means nothing and a value that its
    setting cannot have.
    """
    fields = kind.model_fields
    profile = environment.get(variable("profile")) or str(fields["profile"].default)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def take(found: Mapping[str, str], origin: str) -> None:
        values.update(found)
        origins.update(dict.fromkeys(found, origin))

    take(read_profile(profile, kind=kind), f"env/profiles/{profile}.env")
    for name, field in fields.items():
        if text := environment.get(note(field, "exports")):
            take({name: text}, f"environment, {note(field, 'exports')}")
    own = {key: text for key, text in environment.items() if key.startswith(PREFIX)}
    take(_by_name(own, kind, "environment"), "environment")
    try:
        settings = kind(**values)
    except ValidationError as error:
        raise _refusal(error, kind, origins) from None
    settings._origins.update(origins)
    return settings


def profile_names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in PROFILES.glob("*.env"))


def read_profile(name: str, *, kind: type[Settings] = Settings) -> dict[str, str]:
    """The texts that `env/profiles/<name>.env` sets, by field. Raises SettingsError for a missing or odd file."""
    if name not in profile_names():
        advice = f"choose from: {', '.join(profile_names())}"
        raise SettingsError(variable("profile"), f"there is no profile {name!r}", advice)
    lines = dotenv_values(PROFILES / f"{name}.env", interpolate=False)
    found = _by_name({key: text or "" for key, text in lines.items()}, kind, f"env/profiles/{name}.env")
    if "profile" in found:
        raise SettingsError(variable("profile"), f"is for the environment, not for env/profiles/{name}.env")
    return found


def exports(settings: Settings) -> dict[str, str]:
    """The variables that torch_npu, CANN and OpenMP must find in the environment when they load."""
    found = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if note(field, "exports") and value is not None:
            found[note(field, "exports")] = str(under_project(value) if isinstance(value, Path) else value)
    return found


def variable(name: str) -> str:
    """The environment variable of field `name`."""
    return PREFIX + name.upper()


def note(field: FieldInfo, key: str) -> str:
    """What `setting` noted under `key`: "unit", "chinese", "exports" or "form"; empty if nothing."""
    notes = field.json_schema_extra
    return str(notes.get(key, "")) if isinstance(notes, dict) else ""


def under_project(path: str | Path) -> Path:
    """`path`; if it is relative, as seen from the project's root."""
    return PROJECT / Path(path).expanduser()


def _by_name(variables: Mapping[str, str], kind: type[Settings], origin: str) -> dict[str, str]:
    """The texts of those variables that are not empty, by field; SettingsError for a variable that means nothing."""
    names = {variable(name): name for name in kind.model_fields}
    for unknown in sorted(variables.keys() - names.keys()):
        near = difflib.get_close_matches(unknown.upper(), names, n=1)
        advice = f"did you mean {near[0]}?" if near else "`invoke config` lists the settings there are"
        raise SettingsError(unknown, f"is no setting of the kit (found in {origin})", advice)
    return {names[key]: text for key, text in variables.items() if text}


def _refusal(error: ValidationError, kind: type[Settings], origins: Mapping[str, str]) -> SettingsError:
    """The values that pydantic refused, in an operator's words. A secret is not repeated."""
    subjects, reasons = [], []
    for problem in error.errors():
        name = str(problem["loc"][0])
        field = kind.model_fields[name]
        _, _, native = origins[name].partition(", ")
        subjects.append(native or variable(name))
        value = "the value" if is_secret(field) else repr(problem["input"])
        reasons.append(f"{value} (from {origins[name]}) is not allowed, expected {allowed(field)}")
    return SettingsError(", ".join(subjects), "; ".join(reasons), "correct it, then see `invoke config`")
