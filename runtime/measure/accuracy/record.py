"""The record of a run over a data set: out/accuracy/accuracy.json."""

from dataclasses import dataclass

from runtime.measure.accuracy import Refused
from runtime.measure.accuracy.published import Published
from runtime.measure.accuracy.score import Score
from runtime.measure.records import Form, Head

ACCURACY = Form("accuracy", 1)
FILE = "accuracy.json"


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
    score: Score
    published: tuple[Published, ...] = ()
