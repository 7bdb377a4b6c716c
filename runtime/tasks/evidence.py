"""The document that is handed over: report."""

from pathlib import Path
from typing import Any

from invoke import Context, Exit, task
from invoke.parser import Argument
from invoke.tasks import Task

from env.errors import KitError, UsageError
from env.sources import load_settings, under_project
from runtime.tasks.errors import handle_errors

INTERRUPTED = 130  # exit code, as a shell has it for Ctrl-C


class TwoValueFlag(Argument):
    """A flag that takes two values, which Invoke's parser lacks: it is asked for more until it has a raw value."""

    def __init__(self, names: tuple[str, ...], *, help: str) -> None:
        super().__init__(names=names, help=help)

    def __repr__(self) -> str:
        """As Invoke's refusal of a single value shows it."""
        return "--compare (two files)"

    def set_value(self, value: Any, cast: bool = True) -> None:  # noqa: ARG002 - Invoke's own signature
        """One more."""
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
        from runtime.measure.report import compare as changes
        from runtime.measure.report import render, run
    except ModuleNotFoundError as error:
        reason = f"needs {error.name}, which is not installed"
        raise KitError(
            "invoke report", reason, "python env/install.py cpu, or npu; in a container: make shell"
        ) from None
    from runtime.tables import console

    if lang not in ("en", "zh"):
        raise UsageError("--lang", f"{lang!r} is neither en nor zh")
    out = console()
    if compare:
        before, after = (run.read(Path(name)) for name in compare)
        for part in changes.shown(before, after):
            out.print(part)
        return
    settings = load_settings()
    try:
        made = run.make(settings, fresh=fresh, tell=lambda words: print(f"Report: {words} …", flush=True))
    except KeyboardInterrupt:
        raise Exit("report: interrupted before anything was known", code=INTERRUPTED) from None
    paths = run.write(made, under_project(settings.out_dir) / run.FOLDER, lang)  # type: ignore[arg-type]
    for part in render.shown(made):
        out.print(part)
    for path in paths:
        out.print(f"Written to {path}", markup=False, highlight=False, soft_wrap=True)
    if not made.head.complete:
        raise Exit(f"report: {made.head.ended}; the same command goes on from there", code=INTERRUPTED)
    if faults := run.faults(made):
        raise Exit(f"report: {'; '.join(faults)}", code=1)
