"""A run over a data set as tables for people, in English and Chinese, on a terminal and as Markdown."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from env.translation import Bilingual, Language, Translator
from runtime.languages import LANGUAGES
from runtime.measure.accuracy.run import Accuracy
from runtime.measure.accuracy.score import CONFIDENCE, LENGTHS, Bad, Identified, Rate
from runtime.measure.error_rate import Step, Unit
from runtime.measure.metrics import UNKNOWN, amount
from runtime.tables import table

MOST_ROWS = 20  # of speakers, confusions, failures and bad utterances; the record has all
LABELS: dict[Unit, str] = {"words": "WER", "characters": "CER"}


@dataclass(frozen=True)
class AccuracyTable:
    """A table with a title, and what is to be said below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def spoken(name: str, say: Translator) -> str:
    """A language's name; a dash for none."""
    return say.words(Bilingual(name, LANGUAGES[name].chinese if name in LANGUAGES else name)) or UNKNOWN


def percent(share: float | None) -> str:
    """A share as `1.50%`, a dash for None."""
    return UNKNOWN if share is None else f"{share:.2%}"


def marked(steps: Sequence[Step], unit: Unit) -> str:
    """An alignment in one line: what is missing or was something else as [-so-], what was heard instead as {+so+}."""
    parts = []
    for step in steps:
        if step.kind == "equal":
            parts.append(step.reference)
        else:
            said = f"[-{step.reference}-]" if step.reference else ""
            parts.append(said + (f"{{+{step.hypothesis}+}}" if step.hypothesis else ""))
    return (" " if unit == "words" else "").join(parts)


def summary(record: Accuracy, language: Language) -> list[str]:
    """What was measured, on what, and what a reader must know before the rates."""
    say, where, score = Translator(language), record.head.where, record.score
    audio = amount(score.seconds, "s")
    lines = [
        say(
            "{name}: {done} of {asked} utterances, {audio} of audio",
            name=record.name,
            done=record.done,
            asked=record.asked,
            audio=audio,
        ),
        f"{where.model}, {where.dtype}, {where.silicon} ({where.description})"
        + (f", {where.url}" if where.url else ""),
    ]
    if record.asked < record.items:
        lines.append(say("A part of the set's {items} utterances", items=record.items))
    if not record.head.complete:
        lines.append(say("NOT WHOLE: {ended}", ended=record.head.ended))
    if record.failed:
        count = len(record.failed)
        lines.append(
            say(
                ("{count} utterances FAILED and are in no rate; “with failed” counts all of them as missed"),
                count=count,
            )
        )
    if record.refused:
        count = len(record.refused)
        lines.append(say("{count} entries of the data set could not be used", count=count))
    if record.forced:
        lines.append(say("Languages were given to the model"))
    return lines


def grids(record: Accuracy, language: Language) -> Iterator[AccuracyTable]:
    """All tables that have rows, the most important first."""
    say, score = Translator(language), record.score
    rates = [
        *((say("all"), rate) for rate in score.overall),
        *((spoken(rate.name, say), rate) for rate in score.languages),
    ]
    texts = say("texts compared as they are") if record.plain else say("texts normalised by language")
    yield _rates(say("Error rates"), rates, say, notes=(f"{texts}{say('; ')}{_interval(record, say)}",))
    yield _rates(say("By length"), [(_span(rate.name), rate) for rate in score.lengths], say)
    yield _speakers(score.speakers, say)
    if score.identified:
        yield _confusion(score.identified, say)
    yield _others(record, say)
    yield _published(record, say)
    for title, pairs in (
        (say("Failed"), [(each.name, each.reason) for each in record.failed]),
        (say("Entries that cannot be used"), [(each.where, each.reason) for each in record.refused]),
    ):
        shown = (say("Where"), say("Why"))
        yield AccuracyTable(title, shown, tuple(pairs[:MOST_ROWS]), _left_off(len(pairs), say))
    yield _worst(score.worst, say)


def print_tables(record: Accuracy, out: Console) -> None:
    """For a terminal, in English."""
    for line in summary(record, "en"):
        out.print(line, markup=False, highlight=False)
    for grid in grids(record, "en"):
        if grid.rows:
            shown = table(*grid.columns)
            for row in grid.rows:
                shown.add_row(*map(escape, row))
            out.print(f"\n[bold]{escape(grid.title)}[/]")
            out.print(shown)
            for note in grid.notes:
                out.print(note, markup=False, highlight=False)


def markdown(record: Accuracy, language: Language) -> str:
    """The same as a document."""
    say = Translator(language)
    lines = [f"# {say('Accuracy')}", ""]
    lines += [f"- {_plain(line)}" for line in summary(record, language)]
    lines += [f"- {record.head.begun}", f"- `{record.head.command}`"]
    for grid in grids(record, language):
        if grid.rows:
            lines += ["", f"## {grid.title}", ""]
            lines += [_row(grid.columns), _row("---" for _ in grid.columns), *(_row(map(_plain, r)) for r in grid.rows)]
            lines += [text for note in grid.notes for text in ("", _plain(note))]
    return "\n".join(lines) + "\n"


def _row(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text of which Markdown makes nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _rates(
    title: str, rates: Sequence[tuple[str, Rate]], say: Translator, *, notes: tuple[str, ...] = ()
) -> AccuracyTable:
    columns = (
        *("", "", say("Utterances"), say("Failed"), say("Error rate")),
        *(say("{CONFIDENCE:.0%} interval", CONFIDENCE=CONFIDENCE), say("With failed")),
        *(say("Units"), say("Substituted"), say("Deleted"), say("Inserted")),
        say("Without error"),
    )
    return AccuracyTable(title, columns, tuple((name, *_cells(rate)) for name, rate in rates), notes if rates else ())


def _cells(rate: Rate) -> tuple[str, ...]:
    interval = UNKNOWN if rate.low is None or rate.high is None else f"{percent(rate.low)}–{percent(rate.high)}"
    done = rate.utterances - rate.failed
    return (
        *(LABELS[rate.unit], str(rate.utterances), str(rate.failed), percent(rate.rate), interval),
        *(percent(rate.with_failed), str(rate.length)),
        *(str(rate.substitutions), str(rate.deletions), str(rate.insertions)),
        f"{rate.exact / done:.1%}" if done else UNKNOWN,
    )


def _interval(record: Accuracy, say: Translator) -> str:
    by_speaker = any(rate.resampled == "speakers" for rate in record.score.overall)
    return say("interval by bootstrap over speakers") if by_speaker else say("interval by bootstrap over utterances")


def _span(begin: str) -> str:
    """A group of lengths by where it begins, in seconds."""
    end = next((edge for edge in LENGTHS if edge > float(begin)), None)
    return f"> {begin} s" if end is None else f"{begin}–{end:g} s"


def _speakers(rates: Sequence[Rate], say: Translator) -> AccuracyTable:
    ordered = sorted(rates, key=lambda rate: -(rate.with_failed or 0))
    title = say("By speaker, the worst first")
    shown = _rates(title, [(rate.name, rate) for rate in ordered[:MOST_ROWS]], say)
    return AccuracyTable(shown.title, shown.columns, shown.rows, _left_off(len(rates), say))


def _confusion(found: Identified, say: Translator) -> AccuracyTable:
    pairs = sorted(found.confusion, key=lambda pair: (pair[0] == pair[1], -pair[2]))
    rows = [
        (spoken(said, say), spoken(heard, say) if heard else say("nothing"), str(times)) for said, heard, times in pairs
    ]
    right = f"{found.right} / {found.utterances} = {found.right / found.utterances:.1%}"
    columns = (say("Spoken"), say("Detected"), say("Utterances"))
    title = say("Language identified: {right}", right=right)
    return AccuracyTable(title, columns, tuple(rows[:MOST_ROWS]), _left_off(len(rows), say))


def _others(record: Accuracy, say: Translator) -> AccuracyTable:
    score = record.score
    rows = [
        (say("text cut off at the token limit"), str(score.truncated)),
        (say("endless repetition left out"), str(score.repeated)),
    ]
    if score.silences:
        share = f"{score.silent} / {score.silences} = {score.silent / score.silences:.1%}"
        rows.insert(0, (say("silence in which nothing was heard"), share))
    return AccuracyTable(say("Beyond the rates"), ("", say("Utterances")), tuple(rows))


def _published(record: Accuracy, say: Translator) -> AccuracyTable:
    columns = (say("Model"), say("Data"), "", say("Error rate"), say("Source"))
    rows = [(each.model, each.data, LABELS[each.unit], percent(each.rate), each.source) for each in record.published]
    note = say(
        "As published: other hardware, another normalising of texts; some tenths of a per cent say little. The source "
        "calls all of them WER.",
    )
    return AccuracyTable(say("Published"), columns, tuple(rows), (note,))


def _worst(bad: Sequence[Bad], say: Translator) -> AccuracyTable:
    columns = (say("Utterance"), say("Errors"), say("Said and heard"))
    rows = tuple(
        (each.name, f"{each.errors} / {each.length}", marked(each.steps, each.unit)) for each in bad[:MOST_ROWS]
    )
    note = say("[-said, not heard-] {+heard, not said+}")
    return AccuracyTable(say("The worst utterances"), columns, rows, (note,))


def _left_off(count: int, say: Translator) -> tuple[str, ...]:
    more = count - MOST_ROWS
    return (say("and {more} more, in the record", more=more),) if more > 0 else ()
