"""What tests read of the documents."""

import re
import subprocess
from pathlib import Path

from env.sources import PROJECT

CHINESE = ".zh-CN"


def documents() -> list[Path]:
    """Every Markdown file of the project that git tracks, or would."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    paths = (PROJECT / name for name in listing.stdout.decode().split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def twin(path: Path) -> Path:
    """Where the Chinese text of an English document is."""
    return path.with_name(f"{path.stem}{CHINESE}{path.suffix}")


def commands(text: str) -> list[str]:
    """What a README tells one to type, in its console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def scripts(text: str) -> list[str]:
    """The lines of a document's sh blocks, without comments; those of a script with a first line of its own are one."""
    lines = []
    for indent, block in re.findall(r"^( *)```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        typed = [re.sub(r"\s+# .*", "", line.removeprefix(indent)) for line in block.splitlines()]
        lines += ["\n".join(typed)] if block.startswith("#!") else typed
    return lines


def outline(text: str) -> list[str]:
    """Headings' depths, blocks, tables' rows and links, in order: what two languages of one text have in common."""
    marks = re.findall(r"^(#+ |```\w+|\| |- |> |<!-- [\w ]+)|(?<=\]\()([^)]+)(?=\))", text, re.MULTILINE)
    return [mark or "link" for mark, _ in marks]


def anchors(text: str) -> set[str]:
    """The names by which GitHub links to a document's headings: `## What "it" is` is #what-it-is."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[tuple[str, str]]:
    """The links of a document into the project: path, empty for the document itself, and anchor."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [(path, anchor) for path, _, anchor in (link.partition("#") for link in found if "://" not in link)]
