"""What shows that it works: accuracy on a data set, and the report."""

import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, Exit, task
from invoke.parser import Argument
from invoke.tasks import Task

from env.errors import KitError, UsageError
from env.settings import DEMO, Settings
from env.sources import load_settings, under_project
from runtime.tasks.command_line import Files
from runtime.tasks.errors import INTERRUPTED, handle_errors

if TYPE_CHECKING:
    from runtime.measure.accuracy.dataset import DataSet

DATA_SET_ADVICE = "invoke accuracy manifest.jsonl, or the directory of a data set (invoke accuracy --help)"


class DataArgument(Files):
    """A positional argument that may be left out, which Invoke's parser lacks, too."""

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name, help=help)
        self._value = [""]  # so that none is missing


class DataTask(Task):  # type: ignore[type-arg]  # generic in a way mypy cannot follow
    """A task whose parameter `data` may be left out."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with `data` among them replaced."""
        arguments = super().get_arguments(ignore_unknown_help)
        return [DataArgument(a.name or "", help=a.help or "") if a.name == "data" else a for a in arguments]


@task(
    klass=DataTask,
    help={
        "data": "a manifest (JSONL, CSV, TSV), or the directory of LibriSpeech, AISHELL, FLEURS or Common Voice; "
        "default: the demo model's held-out set",
        "split": "which part of a data set, such as test-clean; default: its test set",
        "language": "name or code of the language of what is said, where the data does not tell",
        "force": "give the model each utterance's language, instead of letting it detect it",
        "limit": "how many utterances, spread evenly over the data; default: all",
        "url": "the server to ask, with the key in OPENAI_API_KEY if it wants one; default: the model in this process",
        "fresh": "begin anew; what an earlier run found is put aside",
        "fail-if-above": "error rate, such as 5%, above which the exit code is 1; failed utterances count as missed",
        "lang": "language of the document and the page: en or zh",
    },
)
@handle_errors
def accuracy(
    _: Context,
    data: list[str],
    split: str = "",
    language: str = "",
    force: bool = False,
    limit: int = 0,
    url: str = "",
    fresh: bool = False,
    fail_if_above: str = "",
    lang: str = "en",
) -> None:
    """Transcribe a data set and compare with what is said in it; goes on where an earlier run ended."""
    from runtime.measure.accuracy import backends, journal, tables
    from runtime.measure.accuracy.page import judge, write
    from runtime.measure.accuracy.run import INTERRUPTION, RunObserver, RunOptions, picked, run
    from runtime.progress import progress_bar, status_line
    from runtime.tables import console

    paths = [path for path in data if path]
    if len(paths) > 1:
        raise UsageError(" ".join(paths), "expected one data set", "measure one after the other")
    if lang not in ("en", "zh"):
        raise UsageError("--lang", f"{lang!r} is neither en nor zh")
    if limit < 0:
        raise UsageError("--limit", f"{limit}, expected 1 or more")
    largest_allowed = _parse_share(fail_if_above) if fail_if_above else None
    settings = load_settings()
    found = _read_data_set(paths, settings, split=split, language=language, url=url)
    options = RunOptions(found, picked(found.items, limit), forced=force, fresh=fresh)
    opened = backends.over_http(url, settings) if url else backends.in_process(settings)
    directory = journal.folder(under_project(settings.out_dir), found)
    terminal, bars = console(), []
    with ExitStack() as shown:
        loading = shown.enter_context(status_line(f"Asking {url}" if url else f"Loading {settings.model}"))

        def begins(due: int) -> None:
            loading.finish()
            bars.append(shown.enter_context(progress_bar("Transcribing", due, unit="utterances")))

        listener = RunObserver(
            says=lambda words: terminal.print(words, markup=False, highlight=False, soft_wrap=True),
            begins=begins,
            heard=lambda _: bars[0].advance(1),
        )
        try:
            record = run(options, opened, directory, listener)
        except KeyboardInterrupt:
            raise Exit("accuracy: interrupted before anything was transcribed", code=INTERRUPTED) from None
    tables.print_tables(record, terminal)
    for path in write(record, options, settings, directory, lang):  # type: ignore[arg-type]
        terminal.print(f"Written to {os.path.relpath(path)}", markup=False, highlight=False, soft_wrap=True)
    failures = judge(record, largest_allowed)
    if failures:
        advice = "" if record.head.complete else " → the same command goes on from there"
        interrupted = record.head.ended.startswith(INTERRUPTION)
        raise Exit(f"accuracy: {'; '.join(failures)}{advice}", code=INTERRUPTED if interrupted else 1)


def _read_data_set(paths: list[str], settings: Settings, *, split: str, language: str, url: str) -> "DataSet":
    """The data set that is meant. Raises UsageError where none is, or where it cannot be read."""
    if paths:
        from runtime.measure.accuracy.layouts import read

        return read(Path(paths[0]), language=language or None, split=split)
    if url or settings.model != DEMO:
        what = "a server" if url else settings.model
        raise UsageError("DATA", f"expected a data set to measure {what} with", DATA_SET_ADVICE)
    if split or language:
        raise UsageError("--split" if split else "--language", "is for a data set that is given", DATA_SET_ADVICE)
    from runtime.measure.accuracy import published

    return published.data_set()


def _parse_share(typed: str) -> float:
    """A share typed as a percentage: 5% is 0.05. Raises UsageError."""
    if not re.fullmatch(r"\d{1,2}(\.\d+)?%|100%", typed):
        raise UsageError("--fail-if-above", f"{typed!r}, expected an error rate such as 5%")
    return float(typed.removesuffix("%")) / 100


class TwoValueFlag(Argument):
    """A flag that takes two values, which Invoke's parser lacks: it is asked for more until it has a raw value."""

    def __init__(self, names: tuple[str, ...], *, help: str) -> None:
        super().__init__(names=names, help=help)

    def __repr__(self) -> str:
        """As Invoke's refusal of a single value shows it."""
        return "--compare (two files)"

    def set_value(self, value: Any, cast: bool = True) -> None:  # noqa: ARG002 - Invoke's own signature
        """Take one more value; the raw value, which ends Invoke's asking, is set with the second."""
        self._value = [*(self._value or []), value]
        self.raw_value = value if len(self._value) >= 2 else None


class ReportTask(Task):  # type: ignore[type-arg]  # generic in a way mypy cannot follow
    """A task whose flag `--compare` takes two values."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with `compare` among them replaced."""
        arguments = super().get_arguments(ignore_unknown_help)
        return [TwoValueFlag(a.names, help=a.help or "") if a.name == "compare" else a for a in arguments]


@task(
    klass=ReportTask,
    auto_shortflags=False,
    help={
        "lang": "language of the document: en or zh",
        "fresh": "measure everything anew, also what earlier runs have found with what is there now",
        "compare": "two report.json: print what changed from the first to the second, and measure nothing",
    },
)
@handle_errors
def report(_: Context, lang: str = "en", fresh: bool = False, compare: list[str] | None = None) -> None:
    """Write the document of what was measured here, and measure what is missing: report.md, .html and .json."""
    try:
        from runtime.measure.report import compare as comparison
        from runtime.measure.report import render, run
    except ModuleNotFoundError as error:
        reason = f"needs {error.name}, which is not installed"
        raise KitError(
            "invoke report", reason, "python env/install.py cpu, or npu; in a container: make shell"
        ) from None
    from runtime.tables import console

    if lang not in ("en", "zh"):
        raise UsageError("--lang", f"{lang!r} is neither en nor zh")
    terminal = console()
    if compare:
        before, after = (run.read(Path(name)) for name in compare)
        for part in comparison.shown(before, after):
            terminal.print(part)
        return
    settings = load_settings()
    try:
        made = run.make(settings, fresh=fresh, tell=lambda words: print(f"Report: {words} …", flush=True))
    except KeyboardInterrupt:
        raise Exit("report: interrupted before anything was known", code=INTERRUPTED) from None
    paths = run.write(made, under_project(settings.out_dir) / run.FOLDER, lang)  # type: ignore[arg-type]
    for part in render.shown(made):
        terminal.print(part)
    for path in paths:
        terminal.print(f"Written to {path}", markup=False, highlight=False, soft_wrap=True)
    if not made.head.complete:
        raise Exit(f"report: {made.head.ended}; the same command goes on from there", code=INTERRUPTED)
    if faults := run.faults(made):
        raise Exit(f"report: {'; '.join(faults)}", code=1)
