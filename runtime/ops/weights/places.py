"""Which directory the weights belong in, which repository they come from, and where they are put together."""

from dataclasses import dataclass
from pathlib import Path

from env.errors import UsageError
from env.settings import DEMO, Settings
from env.sources import PROJECT, profile_names, read_profile, under_project
from runtime.ops.weights.facts import Facts

WEIGHTS = "weights"  # under the project's root


@dataclass(frozen=True)
class Place:
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


def place(settings: Settings, facts: Facts) -> Place:
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
    return Place(directory.resolve(), repo, under_project(settings.weights_lock))


def shown(path: Path) -> str:
    """A path as an operator types it: from the project's root, if it is in there."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def usage(settings: Settings, spot: Place) -> str:
    """What to type to use the weights that are in place."""
    model = shown(spot.directory)
    if settings.model != DEMO:
        return "ASR_MODEL names them already: invoke smoke"
    profiles = [name for name in profile_names() if read_profile(name).get("model") == model]
    also = f", or a profile that names them: ASR_PROFILE={' or '.join(profiles)}" if profiles else ""
    return f"To use them: ASR_MODEL={model} invoke smoke{also}"
