"""What env/weights.toml knows: where the hubs are, which revisions are pinned, what the files are."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from env.sources import PROJECT
from runtime.ops.weights.manifest import Manifest, Record, record_from

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FACTS = PROJECT / "env" / "weights.toml"


@dataclass(frozen=True)
class Model:
    """A published model: `revisions` by hub, and the files that it needs."""

    revisions: Mapping[str, str]
    files: Manifest


@dataclass(frozen=True)
class Clip:
    """A recording to be fetched from `url`, and what is said in it, in a language by its English name; empty where that
    is not known."""

    name: str
    url: str
    record: Record
    language: str = ""
    text: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is known; `hubs` are addresses by the name of the hub, `models` go by their repository."""

    hubs: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    clips: tuple[Clip, ...] = ()


def load(path: Path = FACTS) -> Facts:
    """The facts in env/weights.toml."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))

    def manifest(entries: Mapping[str, object]) -> dict[str, Record]:
        return {name: record_from(entry, where=f"{path.name}, {name}") for name, entry in entries.items()}

    return Facts(
        hubs=tables["hubs"],
        models={
            repo: Model(table["revisions"], {**manifest(tables["common"]), **manifest(table["files"])})
            for repo, table in tables["models"].items()
        },
        clips=tuple(
            Clip(name, table["url"], record_from(table, where=f"{path.name}, {name}"), table["language"], table["text"])
            for name, table in tables["clips"].items()
        ),
    )
