"""Settings as a person reads them: the values in force for `invoke config`, all that exist for env/README.md."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from env import markdown
from env.field import allowed, note, variable
from env.settings import Settings
from env.sources import PROJECT, profile_names, read_profile
from env.stacks import load_stack, read_stacks

Language = Literal["en", "zh"]

MASK = "********"
HEADINGS: dict[Language, tuple[str, ...]] = {
    "en": ("Variable", "Allowed", "Default", "In profiles", "Unit", "What it does"),
    "zh": ("变量", "取值", "默认值", "各配置中的值", "单位", "作用"),
}
SETS: dict[Language, str] = {"en": " Sets `{}`.", "zh": "对应 `{}`。"}
# The words of units and of what is allowed. A phrase comes before the words in it.
CHINESE = {
    "8 characters or more": "8 个字符以上",
    "origins with commas between, or *": "以逗号分隔的来源,或 *",
    "IPv4 or IPv6 address, or localhost": "IPv4 或 IPv6 地址,或 localhost",
    "whole number": "整数",
    "number": "数值",
    " to ": " 至 ",
    " or ": " 或 ",
    "path": "路径",
    "text": "文本",
    "option:value": "选项:值",
    "utterances": "段",
    "tokens": "token",
    "threads": "线程",
    "cores": "核",
    "files": "个文件",
    "requests": "个请求",
    "sessions": "个会话",
    "servers": "个服务",
    "http(s) address": "http(s) 地址",
    "owner/name": "所有者/名称",
    "host:port": "主机:端口",
    "name[:tag][@digest]": "名称[:标签][@摘要]",
}

READMES: dict[Path, Language] = {PROJECT / "env" / "README.md": "en", PROJECT / "env" / "README.zh-CN.md": "zh"}
STACKS = ("npu", "vllm", "cpu")
SHOWN = ("torch", "torch-npu", "transformers", "accelerate", "soundfile", "qwen-asr", "vllm", "vllm-ascend")
VERSION_HEADINGS: dict[Language, tuple[str, ...]] = {"en": ("Package", *STACKS), "zh": ("软件包", *STACKS)}


@dataclass(frozen=True)
class SettingRow:
    """One setting in force. `value` and `default` are texts, empty where nothing is set; secrets are masked."""

    variable: str
    value: str
    default: str
    unit: str
    origin: str
    description: str


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting, its value and where that came from."""
    return [
        SettingRow(
            variable=variable(name),
            value=_text(getattr(settings, name)),
            default=_text(field.default),
            unit=note(field, "unit"),
            origin=settings.origin(name),
            description=field.description or "",
        )
        for name, field in type(settings).model_fields.items()
    ]


def settings_table(language: Language = "en", *, kind: type[Settings] = Settings) -> str:
    """Every setting there is, as a Markdown table."""
    profiles = {name: read_profile(name, kind=kind) for name in profile_names()}
    rows = []
    for name, field in kind.model_fields.items():
        holders: dict[str, list[str]] = {}
        for profile, texts in profiles.items():
            if name in texts:
                holders.setdefault(texts[name], []).append(profile)
        native = note(field, "exports")
        description = (field.description or "") if language == "en" else note(field, "chinese")
        cells = (
            markdown.code(variable(name)),
            ", ".join(profiles) if name == "profile" else _words(allowed(field), language),
            markdown.code(_text(field.default)),
            "; ".join(f"{markdown.code(text)} ({', '.join(names)})" for text, names in holders.items()),
            _words(note(field, "unit"), language),
            description + (SETS[language].format(native) if native else ""),
        )
        rows.append(cells)
    return markdown.table(HEADINGS[language], rows)


def _words(text: str, language: Language) -> str:
    for english, chinese in CHINESE.items() if language == "zh" else ():
        text = text.replace(english, chinese)
    return text


def _text(value: Any) -> str:
    """A value as it is written in a variable."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    return "" if value is None else str(value)


def refresh() -> Iterator[Path]:
    """Renew the tables in both READMEs; yields those that changed."""
    for path in READMES:
        old = path.read_text(encoding="utf-8")
        new = renewed(path)
        if new != old:
            path.write_text(new, encoding="utf-8")
            yield path


def renewed(path: Path) -> str:
    """A README's text with its tables as they should be. Raises ValueError where it lacks the markers of a table."""
    text = path.read_text(encoding="utf-8")
    for name, table in {"settings": settings_table(READMES[path]), "stacks": stacks_table(READMES[path])}.items():
        begin, end = f"<!-- {name}: begin, written by invoke dev.readme -->", f"<!-- {name}: end -->"
        pattern = re.compile(f"(?<={re.escape(begin)}\n).*?(?={re.escape(end)})", re.DOTALL)
        text, found = pattern.subn(lambda _, table=table: f"\n{table}\n", text)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"{path}: {found} tables between {begin} and {end}, not 1")
    return text


def stacks_table(language: Language) -> str:
    """The pinned versions of the packages that matter, for an aarch64 host with Python 3.11."""
    rows: list[tuple[str, ...]] = []
    pins = {stack: load_stack(stack).pins_for(python="3.11", machine="aarch64") for stack in STACKS}
    for package in SHOWN:
        versions = [next((pin.version for pin in pins[stack] if pin.name == package), "") for stack in STACKS]
        rows.append((package, *versions))
    rows.append(("CANN", *(read_stacks()["stacks"][stack].get("cann", "") for stack in STACKS)))
    return markdown.table(VERSION_HEADINGS[language], rows)
