"""Accuracy: how much of what is said in a data set is heard, by language, length and speaker."""

from dataclasses import dataclass

from runtime.transcriber import Source


@dataclass(frozen=True)
class Item:
    """An utterance with its reference. `name` is unique in its data set, `language` the English name (None: not given),
    `speaker` empty where not given. An empty `text` says that nobody speaks."""

    name: str
    source: Source
    text: str
    language: str | None = None
    speaker: str = ""


@dataclass(frozen=True)
class Refused:
    """An entry that cannot be used, counted but not fatal: where it stands (`file:line` or a file), and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """`name` as shown, such as `LibriSpeech test-clean`; `layout` (manifest, librispeech, aishell, fleurs,
    common-voice, demo); `digest` changes with its entries, so that a run is resumed on the same data alone; `plain`
    texts are compared as they are (`count(…, plain=True)`), others are normalised first."""

    name: str
    layout: str
    digest: str
    items: tuple[Item, ...]
    refused: tuple[Refused, ...] = ()
    plain: bool = False
