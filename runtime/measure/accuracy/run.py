"""A data set through the model, utterance by utterance: what is known from before is kept, the rest is heard now."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from runtime.measure.accuracy import journal
from runtime.measure.accuracy.dataset import DataSet, Item, Refused
from runtime.measure.accuracy.journal import Basis, RunJournal, UtteranceOutcome
from runtime.measure.accuracy.published import Published, published
from runtime.measure.accuracy.score import AccuracyScore, compared, scored
from runtime.measure.records import CALCULATING, COMPLETE, Form, Head, RunClock, Where

ACCURACY = Form("accuracy", 1)
FILE = "accuracy.json"

INTERRUPTION = "interrupted"  # how Head.ended begins where Ctrl-C ended the run


@dataclass(frozen=True)
class Broken:
    """An utterance that could not be transcribed, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Accuracy:
    """`items` is how many utterances the data set has, `asked` how many were asked for, `done` how many of those have
    an outcome, `kept` of these were known from an earlier run. `refused` are entries of the data set that cannot be
    used, `failed` utterances that could not be transcribed; neither is in a rate. `basis` is what the outcomes depend
    on; `forced` says that languages were given, `plain` that texts were not normalised; `journal` is the file of the
    outcomes."""

    head: Head
    name: str
    layout: str
    digest: str
    items: int
    asked: int
    done: int
    kept: int
    forced: bool
    plain: bool
    basis: dict[str, str]
    journal: str
    refused: tuple[Refused, ...]
    failed: tuple[Broken, ...]
    score: AccuracyScore
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class RunOptions:
    """What is asked for: `items` of the data set, their languages given to the model or (not `forced`) detected; a
    `fresh` run begins anew; `worst` is how many bad utterances the record lists."""

    data: DataSet
    items: tuple[Item, ...]
    forced: bool = False
    fresh: bool = False
    worst: int = 50


@dataclass(frozen=True)
class Backend:
    """What hears: where it is, the settings that outcomes depend on, and how. `hear` yields an outcome for each item,
    in any order, and raises KitError where none can be had any more."""

    place: Where
    settings: Basis
    hear: Callable[[Sequence[Item], bool], Generator[UtteranceOutcome, None, None]]


@dataclass(frozen=True)
class RunObserver:
    """Whom a run tells: `says` is told in words what is kept, `begins` how many utterances are to be heard, `heard` of
    each of them."""

    says: Callable[[str], None] = lambda _: None
    begins: Callable[[int], None] = lambda _: None
    heard: Callable[[UtteranceOutcome], None] = lambda _: None


def picked(items: Sequence[Item], limit: int) -> tuple[Item, ...]:
    """At most so many of the items, spread evenly, as the first ones may all be of one speaker; 0 stands for all."""
    if not 0 < limit < len(items):
        return tuple(items)
    return tuple(items[number * len(items) // limit] for number in range(limit))


def run(ask: RunOptions, opened: AbstractContextManager[Backend], directory: Path, listener: RunObserver) -> Accuracy:
    """Hear what is not known yet, and score all. Outcomes are kept in `directory`, failures are tried again.

    Where Ctrl-C or a failure that no utterance is to blame for ends the run, the record says so. Raises KitError where
    nothing could be begun, and KeyboardInterrupt before that.
    """
    clock, ended = RunClock(), COMPLETE
    book, place, basis, kept = None, None, {}, 0
    try:
        with opened as ears:
            place, basis = ears.place, _basis(ask, ears)
            with journal.opened(directory, basis, fresh=ask.fresh) as book:
                due = [item for item in ask.items if not _known(book, item)]
                kept = len(ask.items) - len(due)
                for words in _told(book, basis, kept, len(ask.items)):
                    listener.says(words)
                listener.begins(len(due))
                with closing(ears.hear(due, ask.forced)) as outcomes:
                    for outcome in outcomes:
                        book.add(outcome)
                        listener.heard(outcome)
    except (KitError, KeyboardInterrupt) as error:
        if book is None or place is None:
            raise
        why = INTERRUPTION if isinstance(error, KeyboardInterrupt) else f"stopped ({error})"
        ended = f"{why} after {_done(ask.items, book)} of {len(ask.items)} utterances"
    return _record(ask, clock, place, ended, book, basis, kept)


def _record(
    ask: RunOptions, clock: RunClock, place: Where, ended: str, book: RunJournal, basis: Basis, kept: int
) -> Accuracy:
    heard = compared(ask.items, book.outcomes, plain=ask.data.plain)
    return Accuracy(
        clock.head(ACCURACY, place, ended=ended),
        ask.data.name,
        ask.data.layout,
        ask.data.digest,
        items=len(ask.data.items),
        asked=len(ask.items),
        done=len(heard),
        kept=kept,
        forced=ask.forced,
        plain=ask.data.plain,
        basis=basis,
        journal=str(book.path),
        refused=ask.data.refused,
        failed=tuple(Broken(each.item.name, each.outcome.failure) for each in heard if each.failed),
        score=scored(heard, forced=ask.forced, worst=ask.worst),
        published=published(ask.data),
    )


def _basis(ask: RunOptions, ears: Backend) -> Basis:
    place = ears.place
    return {
        "data": ask.data.digest,
        "model": place.model,
        "revision": place.revision,
        "number format": place.dtype,
        "engine": place.engine,
        "silicon": place.silicon,
        "device": place.description,
        "over HTTP": "yes" if place.url else "no",
        "languages": "given" if ask.forced else "detected",
        "kit": place.kit,
        **{name: place.versions[name] for name in CALCULATING if name in place.versions},
        **ears.settings,
    }


def _known(book: RunJournal, item: Item) -> bool:
    outcome = book.outcomes.get(item.name)
    return outcome is not None and not outcome.failure


def _done(items: Iterable[Item], book: RunJournal) -> int:
    return sum(item.name in book.outcomes for item in items)


def _told(book: RunJournal, basis: Basis, kept: int, asked: int) -> Iterator[str]:
    """What an operator shall know before it begins."""
    if book.unreadable:
        yield f"{book.path}: {book.unreadable} lines cannot be read, what they told is done again"
    if kept:
        yield f"{kept} of {asked} utterances are known from an earlier run, in {book.path}"
        return
    yield f"Outcomes are kept in {book.path}, for the same command to go on if it is cut short"
    for words in journal.others(book, basis):
        yield f"Another run's outcomes are kept and not used, {words}"
