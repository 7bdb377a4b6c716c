"""What a run leaves behind: its files, and whether it is good enough."""

from collections.abc import Iterator
from pathlib import Path

from env.settings import Settings
from runtime.files import write_whole
from runtime.measure import records
from runtime.measure.accuracy.page import page
from runtime.measure.accuracy.present import LABELS, markdown, percent
from runtime.measure.accuracy.record import FILE, Accuracy
from runtime.measure.accuracy.run import Ask
from runtime.measure.quantities import Language
from runtime.transcriber import limits

DOCUMENT, PAGE = "accuracy.md", "worst.html"


def write(record: Accuracy, ask: Ask, settings: Settings, directory: Path, language: Language) -> Iterator[Path]:
    """Write record, document and page of the worst utterances into the data set's directory, and into the one above,
    where the last run's are. Yields the latter. Raises KitError where one cannot be written."""
    items = {item.name: item for item in ask.items}
    texts = {
        DOCUMENT: markdown(record, language),
        PAGE: page(record, items, limits(settings), language),
    }
    for place in (directory, directory.parent):
        records.write(place / FILE, record)
        for name, text in texts.items():
            write_whole(place / name, text)
    yield from (directory.parent / name for name in (FILE, *texts))


def judge(record: Accuracy, most: float | None) -> list[str]:
    """Why the exit code is not 0, in words: what is not whole, and rates above `most`, a share."""
    faults = []
    if not record.head.complete:
        faults.append(record.head.ended)
    if record.failed:
        faults.append(f"{len(record.failed)} of {record.done} utterances failed, the first: {record.failed[0].reason}")
    if record.refused:
        first = record.refused[0]
        reason = f"{len(record.refused)} entries cannot be used, the first: {first.where}: {first.reason}"
        faults.append(reason)
    if not any(rate.length for rate in record.score.overall) and not record.score.silences:
        faults.append("nothing was scored")
    for rate in record.score.overall:
        if most is not None and rate.with_failed is not None and rate.with_failed > most:
            faults.append(f"{LABELS[rate.unit]} {percent(rate.with_failed)}, at most {percent(most)} is allowed")
    return faults
