"""The tables of the READMEs, from the facts that they state."""

import re
from collections.abc import Iterator
from pathlib import Path

from env.describe import Language, settings_table
from env.loading import PROJECT
from env.stacks import facts, load_stack

READMES: dict[Path, Language] = {PROJECT / "README.md": "en", PROJECT / "README.zh-CN.md": "zh"}
STACKS = ("npu", "vllm", "cpu")
SHOWN = ("torch", "torch-npu", "transformers", "accelerate", "soundfile", "qwen-asr", "vllm", "vllm-ascend")
HEADINGS: dict[Language, tuple[str, ...]] = {"en": ("Package", *STACKS), "zh": ("软件包", *STACKS)}


def refresh() -> Iterator[Path]:
    """Renew the tables in both READMEs; yields those that changed."""
    for path in READMES:
        old = path.read_text(encoding="utf-8")
        new = renewed(path)
        if new != old:
            path.write_text(new, encoding="utf-8")
            yield path


def renewed(path: Path) -> str:
    """A README's text with its tables as they should be."""
    text = path.read_text(encoding="utf-8")
    for name, table in {"settings": settings_table(READMES[path]), "stacks": stacks_table(READMES[path])}.items():
        begin, end = f"<!-- {name}: begin, written by invoke readme -->", f"<!-- {name}: end -->"
        pattern = re.compile(f"(?<={re.escape(begin)}\n).*?(?={re.escape(end)})", re.DOTALL)
        text = pattern.sub(lambda _, table=table: f"\n{table}\n", text)  # type: ignore[misc]
    return text


def stacks_table(language: Language) -> str:
    """The pinned versions of the packages that matter, for an aarch64 host with Python 3.11."""
    lines = [HEADINGS[language], ("---",) * len(HEADINGS[language])]
    pins = {stack: load_stack(stack).pins_for(python="3.11", machine="aarch64") for stack in STACKS}
    for package in SHOWN:
        versions = [next((pin.version for pin in pins[stack] if pin.name == package), "") for stack in STACKS]
        lines.append((package, *versions))
    lines.append(("CANN", *(facts()["stacks"][stack].get("cann", "") for stack in STACKS)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
