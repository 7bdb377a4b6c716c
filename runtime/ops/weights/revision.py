"""Which weights are in place, as weights.lock has them."""

from env.settings import DEMO, Settings
from runtime.ops.weights import facts, lock
from runtime.ops.weights.places import place


def recorded(settings: Settings) -> lock.Entry | None:
    """The lock's entry for the weights that the settings mean; None for the demo model, and where it has none."""
    if settings.model == DEMO:
        return None
    spot = place(settings, facts.load())
    return lock.read(spot.lock).get(spot.repo)


def revision(settings: Settings) -> str:
    """The commit of the weights, empty where the lock does not tell."""
    entry = recorded(settings)
    return (entry.commit or entry.revision) if entry else ""
