"""A smoke test from its first transcription to its record. Ctrl-C ends it with what was found."""

import time
from collections.abc import Callable
from functools import partial

from runtime.measure.records import COMPLETE, Clock
from runtime.measure.smoke.cases import Cases
from runtime.measure.smoke.hearing import Ask, Hearing
from runtime.measure.smoke.judge import Ears, judge
from runtime.measure.smoke.record import SMOKE, Check, Outcome, Smoke, Verdict
from runtime.measure.smoke.trials import Trial, trials

Step = Callable[[], Outcome]


def steps(hearing: Hearing, cases: Cases) -> list[Step]:
    """What is to be done, in order. The first transcription pays for warming up, so no clip is timed by it."""
    ears = Ears(hearing)
    return [
        partial(_warmed_up(ears, cases).made, ears),
        *(partial(_known, verdict) for verdict in cases.missing),
        *(partial(judge, ears, clip) for clip in cases.judged),
        *(partial(trial.made, ears) for trial in trials(ears, cases.sounds)),
    ]


def run(todo: list[Step], hearing: Hearing, clock: Clock, *, on_outcome: Callable[[Outcome], object]) -> Smoke:
    """Take all steps, or those before Ctrl-C; `on_outcome` hears of each."""
    found: list[Outcome] = []
    ended = COMPLETE
    try:
        for step in todo:
            found.append(step())
            on_outcome(found[-1])
    except KeyboardInterrupt:
        ended = f"interrupted after {len(found)} of {len(todo)} steps"
    return Smoke(
        head=clock.head(SMOKE, hearing.where, ended=ended),
        passed=ended == COMPLETE and all(outcome.passed for outcome in found),
        verdicts=tuple(outcome for outcome in found if isinstance(outcome, Verdict)),
        checks=tuple(outcome for outcome in found if isinstance(outcome, Check)),
    )


def _warmed_up(ears: Ears, cases: Cases) -> Trial:
    """The first transcription, which is not remembered."""
    clip = cases.sounds[0]
    ask = Ask(clip.path)

    def trying() -> tuple[str, str]:
        started = time.perf_counter()
        ears.hear(ask)
        return f"{time.perf_counter() - started:.2f} s", ""

    return Trial("warm-up", clip.path.name, ask, trying)


def _known(verdict: Verdict) -> Verdict:
    return verdict
