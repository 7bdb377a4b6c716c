"""The model at work, and its weights: smoke, transcribe, fetch-weights, verify-weights."""

import sys
from pathlib import Path

from invoke import Context, Exit, task
from invoke.parser import Argument

from env.sources import load_settings, under_project
from runtime.tasks.command_line import VariadicTask
from runtime.tasks.errors import INTERRUPTED, handle_errors

SHORT_OPTIONS = {"language": "l", "format": "f", "output": "o"}  # as in the commands of other recognisers


class TranscribeTask(VariadicTask):
    """The task `transcribe`, with SHORT_OPTIONS for some of its long ones."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with their short names."""
        arguments = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            if argument.name in SHORT_OPTIONS:
                argument.names = (*argument.names, SHORT_OPTIONS[argument.name])
        return arguments


@task(help={"url": "a running server to ask, with the key in OPENAI_API_KEY if it wants one; not given: this process"})
@handle_errors
def smoke(_: Context, url: str = "") -> None:
    """Transcribe clips whose words are known, in every way there is; exit code 0 only if all is as it should be."""
    from runtime.measure import records
    from runtime.measure.smoke import record, run
    from runtime.measure.smoke.backends import hearing
    from runtime.measure.smoke.record import FILE
    from runtime.measure.smoke.run import cases
    from runtime.progress import progress_bar, status_line
    from runtime.tables import console

    settings, clock, out = load_settings(), records.RunClock(), console()
    title = f"Asking {url}" if url else f"Loading {settings.model}"
    try:
        with status_line(title) as line, hearing(settings, url) as ears:
            line.finish()
            print(record.ran_on(ears.where), flush=True)
            todo = run.steps(ears, cases(settings, ears.where.model))
            with progress_bar("Transcribing", len(todo), unit="steps") as bar:
                found = run.run(todo, ears, clock, on_outcome=lambda _: bar.advance(1))
    except KeyboardInterrupt:
        raise Exit("smoke: interrupted, nothing is written", code=INTERRUPTED) from None
    path = settings.out_dir / FILE
    records.write(under_project(path), found)
    for part in (record.verdicts(found.verdicts), "", record.checks(found.checks)):
        out.print(part)
    print(f"Written to {path}")
    for outcome in found.failed:
        advice = f" → {outcome.advice}" if outcome.advice else ""
        words = f"{outcome.name}: {outcome.fault}{advice}"
        out.print(words, style="red", markup=False, highlight=False, soft_wrap=True)
    if not found.head.complete:
        raise Exit(f"smoke: {found.head.ended}", code=INTERRUPTED)
    if not found.passed:
        raise Exit(f"smoke: {len(list(found.failed))} of {len(found.outcomes)} failed, as said above", code=1)


@task(
    klass=TranscribeTask,
    help={
        "files": "audio files and http(s) URLs, - for standard input",
        "language": "name or code to force, such as English, zh or 粤语; default: detected",
        "context": "hotwords, or a passage that tells what the audio is about",
        "format": "text, json, verbose_json, srt or vtt",
        "output": "directory for one file per input; default: standard output",
    },
)
@handle_errors
def transcribe(
    _: Context, files: list[str], language: str = "", context: str = "", format: str = "text", output: str = ""
) -> None:
    """Transcribe files and URLs; one that fails does not stop the rest, and makes the exit code 1."""
    from runtime.ops.transcribe import TranscribeOptions, transcribe_files

    options = TranscribeOptions(tuple(files), language, context, format, Path(output) if output else None)
    failures = transcribe_files(options, load_settings())
    if failures:
        raise Exit(f"transcribe: {failures} of {len(files)} failed", code=1)


@task
@handle_errors
def fetch_weights(_: Context) -> None:
    """Fetch the weights from a hub (ASR_HUB), check and record them; goes on where an earlier fetch ended."""
    from runtime.weights import catalog
    from runtime.weights.clips import fetch_clips
    from runtime.weights.fetch import fetch

    settings, known = load_settings(), catalog.load()
    try:
        spot = fetch(settings, facts=known)
        fault = fetch_clips(known.clips, spot.clips)
    except KeyboardInterrupt:
        raise Exit(
            "fetch-weights: interrupted; what was fetched is kept → invoke fetch-weights", code=INTERRUPTED
        ) from None
    if fault:  # which is no failure: an intranet has no way to them
        print(f"Without the official clips, which invoke smoke judges by: {fault}", file=sys.stderr)
    print(catalog.usage(settings, spot))


@task(help={"write-lock": "record in weights.lock what is there, for weights that were copied by hand"})
@handle_errors
def verify_weights(_: Context, write_lock: bool = False) -> None:
    """Compare the sums of all weights with weights.lock; exit code 1 where a file is missing, cut off or changed."""
    from runtime.weights import verify

    verify.verify_weights(load_settings(), write_lock=write_lock)
