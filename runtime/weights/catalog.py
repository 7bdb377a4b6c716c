"""What env/weights.toml knows: where the hubs are, which revisions are pinned, what the files are."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from env.errors import UsageError
from env.settings import DEMO, Settings
from env.sources import PROJECT, profile_names, read_profile, under_project
from runtime.weights import lockfile
from runtime.weights.lockfile import LockedFile, Manifest, record_from

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FACTS = PROJECT / "env" / "weights.toml"

WEIGHTS = "weights"  # under the project's root


@dataclass(frozen=True)
class PublishedModel:
    """A published model: `revisions` by hub, and the files that it needs."""

    revisions: Mapping[str, str]
    files: Manifest


@dataclass(frozen=True)
class RemoteClip:
    """A recording to be fetched from `url`, and what is said in it, in a language by its English name; empty where that
    is not known."""

    name: str
    url: str
    record: LockedFile
    language: str = ""
    text: str = ""


@dataclass(frozen=True)
class Catalog:
    """All that is known; `hubs` are addresses by the name of the hub, `models` go by their repository."""

    hubs: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, PublishedModel] = field(default_factory=dict)
    clips: tuple[RemoteClip, ...] = ()


def load(path: Path = FACTS) -> Catalog:
    """The facts in env/weights.toml."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))

    def manifest(entries: Mapping[str, object]) -> dict[str, LockedFile]:
        return {name: record_from(entry, where=f"{path.name}, {name}") for name, entry in entries.items()}

    return Catalog(
        hubs=tables["hubs"],
        models={
            repo: PublishedModel(table["revisions"], {**manifest(tables["common"]), **manifest(table["files"])})
            for repo, table in tables["models"].items()
        },
        clips=tuple(
            RemoteClip(
                name, table["url"], record_from(table, where=f"{path.name}, {name}"), table["language"], table["text"]
            )
            for name, table in tables["clips"].items()
        ),
    )


@dataclass(frozen=True)
class ModelLocation:
    """`directory` is the model's; `lock` the file weights.lock; `repo` the model's name on the hubs."""

    directory: Path
    repo: str
    lock: Path

    @property
    def fetching(self) -> Path:
        """Where fetches work: beside the directory, because only on one file system can files be moved at once."""
        return self.directory.parent / ".fetching"

    @property
    def clips(self) -> Path:
        """Where the official clips are."""
        return self.directory.parent / "clips"


def place(settings: Settings, facts: Catalog) -> ModelLocation:
    """Where the weights are, or will be: the directory that ASR_MODEL names; for the demo model, which needs none,
    weights/<name of the repository>.

    A directory with the name of a known model holds that model, unless ASR_HUB_REPO is set. Raises UsageError where
    it is set to another.
    """
    named = {repo.partition("/")[2]: repo for repo in facts.models}
    repo = settings.hub_repo
    if settings.model == DEMO:
        directory = under_project(WEIGHTS) / repo.partition("/")[2]
    else:
        directory = under_project(settings.model)
        known = named.get(directory.name, repo)
        if settings.origin("hub_repo") == "default":
            repo = known
        elif known != repo:
            advice = f"ASR_HUB_REPO={known}, or another directory in ASR_MODEL"
            reason = f"{settings.model} has the name of {known}, but ASR_HUB_REPO is {repo}"
            raise UsageError("ASR_MODEL", reason, advice)
    # A link is followed, so that the work is done where the files will be.
    return ModelLocation(directory.resolve(), repo, under_project(settings.weights_lock))


def shown(path: Path) -> str:
    """A path as an operator types it: from the project's root, if it is in there."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def usage(settings: Settings, spot: ModelLocation) -> str:
    """What to type to use the weights that are in place."""
    model = shown(spot.directory)
    if settings.model != DEMO:
        return "ASR_MODEL names them already: invoke smoke"
    profiles = [name for name in profile_names() if read_profile(name).get("model") == model]
    also = f", or a profile that names them: ASR_PROFILE={' or '.join(profiles)}" if profiles else ""
    return f"To use them: ASR_MODEL={model} invoke smoke{also}"


def recorded(settings: Settings) -> lockfile.LockedModel | None:
    """The lock's entry for the weights that the settings mean; None for the demo model, and where it has none."""
    if settings.model == DEMO:
        return None
    spot = place(settings, load())
    return lockfile.read(spot.lock).get(spot.repo)


def revision(settings: Settings) -> str:
    """The commit of the weights, empty where the lock does not tell."""
    entry = recorded(settings)
    return (entry.commit or entry.revision) if entry else ""
