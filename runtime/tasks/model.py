"""The model at work: smoke, transcribe, train-demo."""

from pathlib import Path

from invoke import Context, Exit, task
from invoke.parser import Argument

from env.sources import load_settings, under_project
from runtime.ops.variadic import VariadicTask
from runtime.tasks.foreseeing import foreseeing

SHORT = {"language": "l", "format": "f", "output": "o"}  # as in the commands of other recognisers


class TranscribeTask(VariadicTask):
    """A task with the short options of SHORT."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with their short names."""
        arguments = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            if argument.name in SHORT:
                argument.names = (*argument.names, SHORT[argument.name])
        return arguments


@task(help={"url": "a running server to ask, with the key in OPENAI_API_KEY if it wants one; not given: this process"})
@foreseeing
def smoke(_: Context, url: str = "") -> None:
    """Transcribe clips whose words are known, in every way there is; exit code 0 only if all is as it should be."""
    from runtime.measure import records
    from runtime.measure.smoke import record, run
    from runtime.measure.smoke.backends import hearing
    from runtime.measure.smoke.record import FILE
    from runtime.measure.smoke.run import cases
    from runtime.progress import progress, waiting
    from runtime.tables import console

    settings, clock, out = load_settings(), records.Clock(), console()
    title = f"Asking {url}" if url else f"Loading {settings.model}"
    try:
        with waiting(title) as ready, hearing(settings, url) as ears:
            ready()
            print(record.ran_on(ears.where), flush=True)
            todo = run.steps(ears, cases(settings, ears.where.model))
            with progress("Transcribing", len(todo), unit="steps") as bar:
                found = run.run(todo, ears, clock, on_outcome=lambda _: bar.advance(1))
    except KeyboardInterrupt:
        raise Exit("smoke: interrupted, nothing is written", code=130) from None
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
        raise Exit(f"smoke: {found.head.ended}", code=130)
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
@foreseeing
def transcribe(
    _: Context, files: list[str], language: str = "", context: str = "", format: str = "text", output: str = ""
) -> None:
    """Transcribe files and URLs; one that fails does not stop the rest, and makes the exit code 1."""
    from runtime.ops.transcribe import Order, transcribe_files

    order = Order(tuple(files), language, context, format, Path(output) if output else None)
    failures = transcribe_files(order, load_settings())
    if failures:
        raise Exit(f"transcribe: {failures} of {len(files)} failed", code=1)


@task(help={"output": "directory of the checkpoint; default: the embedded one is replaced"})
@foreseeing
def train_demo(_: Context, output: str = "") -> None:
    """Train the embedded demo model from nothing, judge it and write its card (two hours on two cores)."""
    from runtime.demo_recipe.train import produce

    produce(Path(output) if output else None, load_settings())
