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
from runtime.audio import SAMPLE_RATE, Limits, Samples
from runtime.languages import code
from runtime.measure.accuracy import Item
from runtime.measure.accuracy.ears import sound
from runtime.measure.accuracy.present import percent, sayer, spoken, summary
from runtime.measure.accuracy.record import Accuracy
from runtime.measure.accuracy.score import Bad
from runtime.measure.quantities import Language
from runtime.measure.scoring import Step, Unit

LONGEST = 30.0  # seconds of an utterance that can be heard
BIT_RATE = 32_000  # of the MP3; speech of 16 kHz is clear at it
AROUND = 8  # units without error that are shown before and after an error; of longer stretches the middle is left out
TEMPLATE, STYLE = "worst.html", "worst.css"


@dataclass(frozen=True)
class Pair:
    """A word or character of the reference above what was heard; `kind` is that of a `Step`, or `gap`."""

    kind: str
    reference: str = ""
    hypothesis: str = ""


@dataclass(frozen=True)
class Entry:
    """An utterance on the page. `audio` is a data: URI, empty where `silent_because` says why there is none."""

    bad: Bad
    language: str
    heard: str
    code: str
    rate: str
    pairs: tuple[Pair, ...]
    audio: str
    silent_because: str


def page(record: Accuracy, items: Mapping[str, Item], within: Limits, language: Language) -> str:
    """The page, with the sound of those of `items`, by name, that are among the worst."""
    say = sayer(language)
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


def pairs(steps: Sequence[Step], unit: Unit) -> Iterator[Pair]:
    """What stands above what, word by word or character by character."""
    for step in steps:
        said, heard = _units(step.reference, unit), _units(step.hypothesis, unit)
        rows = [
            Pair(step.kind, *both) for both in zip(said or [""] * len(heard), heard or [""] * len(said), strict=True)
        ]
        if step.kind == "equal" and len(rows) > 2 * AROUND + 1:
            yield from rows[:AROUND]
            yield Pair("gap", f"… {len(rows) - 2 * AROUND} …")
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


def _entry(bad: Bad, item: Item, within: Limits, language: Language) -> Entry:
    say = sayer(language)
    audio, fault = "", ""
    try:
        samples = sound(item.source, within).samples[: int(LONGEST * SAMPLE_RATE)]
        audio = "data:audio/mpeg;base64," + base64.b64encode(mp3(samples)).decode()
    except KitError as error:
        fault = str(error)
    return Entry(
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
