"""The worst utterances as one HTML file that can be handed over: aligned texts, and a player each.

The sound is in the file, as MP3, which every browser plays: at most LONGEST seconds of an utterance, which are 160 kB
there, so that 50 utterances take 8 MB at most. No script runs in the page, and it loads nothing.
"""

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from env.errors import KitError
from env.settings import Settings
from env.translation import Language, Translator
from runtime.audio import SAMPLE_RATE, Limits, Samples
from runtime.files import write_whole
from runtime.languages import code
from runtime.measure import records
from runtime.measure.accuracy.backends import sound
from runtime.measure.accuracy.dataset import Item
from runtime.measure.accuracy.run import FILE, Accuracy, RunOptions
from runtime.measure.accuracy.score import Bad
from runtime.measure.accuracy.tables import LABELS, markdown, percent, spoken, summary
from runtime.measure.error_rate import Step, Unit
from runtime.transcriber import limits

LONGEST = 30.0  # seconds of an utterance that can be heard
BIT_RATE = 32_000  # of the MP3; speech of 16 kHz is clear at it
AROUND = 8  # units without error that are shown before and after an error; of longer stretches the middle is left out
TEMPLATE, STYLE = "worst.html", "worst.css"

DOCUMENT, PAGE = "accuracy.md", "worst.html"


@dataclass(frozen=True)
class AlignedPair:
    """A word or character of the reference above what was heard; `kind` is that of a `Step`, or `gap`."""

    kind: str
    reference: str = ""
    hypothesis: str = ""


@dataclass(frozen=True)
class PageEntry:
    """An utterance on the page. `audio` is a data: URI, empty where `silent_because` says why there is none."""

    bad: Bad
    language: str
    heard: str
    code: str
    rate: str
    pairs: tuple[AlignedPair, ...]
    audio: str
    silent_because: str


def page(record: Accuracy, items: Mapping[str, Item], within: Limits, language: Language) -> str:
    """The page, with the sound of those of `items`, by name, that are among the worst."""
    say = Translator(language)
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (folder / STYLE).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template(TEMPLATE).render(
        lang="en" if language == "en" else "zh-CN",
        say=say,
        style=Markup(style),
        style_digest=digest,
        record=record,
        summary=summary(record, language),
        longest=f"{LONGEST:g}",
        entries=[_entry(bad, items[bad.name], within, language) for bad in record.score.worst],
    )


def pairs(steps: Sequence[Step], unit: Unit) -> Iterator[AlignedPair]:
    """What stands above what, word by word or character by character."""
    for step in steps:
        said, heard = _units(step.reference, unit), _units(step.hypothesis, unit)
        rows = [
            AlignedPair(step.kind, *both)
            for both in zip(said or [""] * len(heard), heard or [""] * len(said), strict=True)
        ]
        if step.kind == "equal" and len(rows) > 2 * AROUND + 1:
            yield from rows[:AROUND]
            yield AlignedPair("gap", f"… {len(rows) - 2 * AROUND} …")
            yield from rows[-AROUND:]
        else:
            yield from rows


def mp3(samples: Samples) -> bytes:
    """16 kHz mono float32 samples of shape (n,) as an MP3 file."""
    file = io.BytesIO()
    with av.open(file, mode="w", format="mp3") as out:
        stream = out.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.codec_context.bit_rate = BIT_RATE
        integers = np.round(samples.clip(-1, 1) * 32767).astype(np.int16)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(integers, format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def _entry(bad: Bad, item: Item, within: Limits, language: Language) -> PageEntry:
    say = Translator(language)
    audio, fault = "", ""
    try:
        samples = sound(item.source, within).samples[: int(LONGEST * SAMPLE_RATE)]
        audio = "data:audio/mpeg;base64," + base64.b64encode(mp3(samples)).decode()
    except KitError as error:
        fault = str(error)
    return PageEntry(
        bad,
        language=spoken(bad.language, say),
        heard=spoken(bad.heard, say),
        code=code(bad.language) or "",
        rate=percent(bad.errors / bad.length) if bad.length else "",
        pairs=tuple(pairs(bad.steps, bad.unit)),
        audio=audio,
        silent_because=fault,
    )


def _units(text: str, unit: Unit) -> list[str]:
    return text.split() if unit == "words" else list(text)


def write(record: Accuracy, ask: RunOptions, settings: Settings, directory: Path, language: Language) -> Iterator[Path]:
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
