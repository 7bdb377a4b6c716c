"""Settings as a person reads them: the values in force for `invoke config`, all that exist for env/README.md."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from env import markdown
from env.field import allowed, note, variable
from env.settings import Settings
from env.sources import PROJECT, profile_names, read_profile
from env.stacks import load_stack, read_stacks
from env.translation import Language, message, translated

MASK = "********"
HEADINGS = (
    message("Variable"),
    message("Allowed"),
    message("Default"),
    message("In profiles"),
    message("Unit"),
    message("What it does"),
)
# The words of units and of what is allowed. A phrase comes before the words in it.
PHRASES = (
    message("8 characters or more"),
    message("origins with commas between, or *"),
    message("IPv4 or IPv6 address, or localhost"),
    message("whole number"),
    message("number"),
    message(" to "),
    message(" or "),
    message("path"),
    message("text"),
    message("option:value"),
    message("utterances"),
    message("tokens"),
    message("threads"),
    message("cores"),
    message("files"),
    message("requests"),
    message("sessions"),
    message("servers"),
    message("http(s) address"),
    message("owner/name"),
    message("host:port"),
    message("name[:tag][@digest]"),
)

READMES: dict[Path, Language] = {PROJECT / "env" / "README.md": "en", PROJECT / "env" / "README.zh-CN.md": "zh"}
STACKS = ("npu", "vllm", "cpu")
SHOWN = ("torch", "torch-npu", "transformers", "accelerate", "soundfile", "qwen-asr", "vllm", "vllm-ascend")


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
        description = translated(field.description or "")[language]
        cells = (
            markdown.code(variable(name)),
            ", ".join(profiles) if name == "profile" else _words(allowed(field), language),
            markdown.code(_text(field.default)),
            "; ".join(f"{markdown.code(text)} ({', '.join(names)})" for text, names in holders.items()),
            _words(note(field, "unit"), language),
            description + (translated(" Sets `{variable}`.", variable=native)[language] if native else ""),
        )
        rows.append(cells)
    return markdown.table([translated(heading)[language] for heading in HEADINGS], rows)


def _words(text: str, language: Language) -> str:
    for phrase in PHRASES:
        text = text.replace(phrase, translated(phrase)[language])
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
    return markdown.table((translated("Package")[language], *STACKS), rows)
