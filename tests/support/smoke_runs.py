"""Smoke runs of the demo model."""

import itertools
import signal

from runtime.measure import records
from runtime.measure.smoke.backends import SmokeBackend
from runtime.measure.smoke.record import Outcome, Smoke
from runtime.measure.smoke.run import Cases, run, steps


def smoked(hearing: SmokeBackend, which: Cases, *, interrupted_after: int = 0) -> Smoke:
    """A whole smoke test, or one that Ctrl-C ends after so many steps."""
    left = itertools.count(interrupted_after - 1, -1)

    def on_outcome(_: Outcome) -> None:
        if next(left) == 0:
            signal.raise_signal(signal.SIGINT)

    return run(steps(hearing, which), hearing, records.RunClock(), on_outcome=on_outcome)


def failures(found: Smoke) -> list[str]:
    """The names of clips and checks that failed."""
    return [check.check for check in found.checks if not check.passed] + [
        verdict.clip for verdict in found.verdicts if not verdict.passed
    ]
