"""What a data set says of an utterance, before anybody has looked whether it can be used."""

from dataclasses import dataclass
from pathlib import Path

from runtime.measure.accuracy import Refused


@dataclass(frozen=True)
class Entry:
    """`where` it stands (`file:line`), a `name`, where its audio should be, its reference, and its language by any
    name, code or tag, and speaker, empty where not given."""

    where: str
    name: str
    audio: Path
    text: str
    language: str = ""
    speaker: str = ""


class UnusableError(Exception):
    """An entry that cannot be used; the message says why."""


Listed = Entry | Refused
