"""Data sets of the bundled clips, and runs over them, for the tests of accuracy."""

import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

from runtime.demo import Clip
from runtime.measure.accuracy import backends
from runtime.measure.accuracy.dataset import DataSet
from runtime.measure.accuracy.journal import UtteranceOutcome
from runtime.measure.accuracy.run import Accuracy, RunObserver, RunOptions, run
from runtime.transcriber import Transcriber


def write_manifest(folder: Path, clips: Iterable[Clip], *further: str, times: int = 1) -> Path:
    """A manifest of those of the clips that have no hotwords, so many times, with further lines."""
    plain = [clip for clip in clips if not clip.context]
    lines = []
    for number in range(times):
        for clip in plain:
            name = f"{number}-{clip.path.name}"
            shutil.copy(clip.path, folder / name)
            entry = {"audio": name, "text": clip.text, "language": clip.language, "speaker": f"s{number}"}
            lines.append(json.dumps({key: value for key, value in entry.items() if value is not None}))
    path = folder / "said.jsonl"
    path.write_text("\n".join([*lines, *further]) + "\n", encoding="utf-8")
    return path


def measured(
    data: DataSet, transcriber: Transcriber, directory: Path, *, says: Callable[[str], None] = lambda _: None
) -> tuple[Accuracy, list[UtteranceOutcome]]:
    """A run in this process, and what was heard in it."""
    heard: list[UtteranceOutcome] = []
    listener = RunObserver(says=says, heard=heard.append)
    return run(RunOptions(data, data.items), nullcontext(backends.of(transcriber)), directory, listener), heard
