"""The weights: fetch-weights, verify-weights."""

import sys

from invoke import Context, Exit, task

from env.sources import load_settings
from runtime.tasks.foreseeing import foreseeing


@task
@foreseeing
def fetch_weights(_: Context) -> None:
    """Fetch the weights from a hub (ASR_HUB), check and record them; goes on where an earlier fetch ended."""
    from runtime.weights import catalog
    from runtime.weights.clips import fetch_clips
    from runtime.weights.fetch import fetch

    settings, known = load_settings(), catalog.load()
    try:
        spot = fetch(settings, facts=known)
        fault = fetch_clips(known.clips, spot.clips)
    except KeyboardInterrupt:
        raise Exit("fetch-weights: interrupted; what was fetched is kept → invoke fetch-weights", code=130) from None
    if fault:  # which is no failure: an intranet has no way to them
        print(f"Without the official clips, which invoke smoke judges by: {fault}", file=sys.stderr)
    print(catalog.usage(settings, spot))


@task(help={"write-lock": "record in weights.lock what is there, for weights that were copied by hand"})
@foreseeing
def verify_weights(_: Context, write_lock: bool = False) -> None:
    """Compare the sums of all weights with weights.lock; exit code 1 where a file is missing, cut off or changed."""
    from runtime.weights import verify

    verify.verify_weights(load_settings(), write_lock=write_lock)
