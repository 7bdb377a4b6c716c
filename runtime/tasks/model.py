"""The model at work: smoke, transcribe, train-demo."""

import sys
from pathlib import Path

from invoke import Context, Exit, task
from invoke.parser import Argument
from invoke.parser.parser import ParseMachine
from invoke.tasks import Task

from env.sources import load_settings, under_project
from runtime.tasks.errors import handle_errors

_handle, _complete_context = ParseMachine.handle, ParseMachine.complete_context

SHORT = {"language": "l", "format": "f", "output": "o"}  # as in the commands of other recognisers


class Files(Argument):
    """Collects every word that is no flag."""

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name=name, kind=list, positional=True, help=help)
        self.room = True

    @property
    def value(self) -> list[str] | None:
        """None while there is room for more."""
        return None if self.room else self._value

    @value.setter
    def value(self, word: str) -> None:
        self._value = [*(self._value or []), word]


class VariadicTask(Task):  # type: ignore[type-arg]  # generic in a way mypy cannot follow
    """A task whose parameter `files` takes many values: `@task(klass=VariadicTask)`."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with `files` among them replaced."""
        arguments = super().get_arguments(ignore_unknown_help)
        return [Files(a.name or "", help=a.help or "") if a.name == "files" else a for a in arguments]


def _files(machine: ParseMachine) -> list[Files]:
    arguments = machine.context.args.values() if machine.context else ()
    return [argument for argument in arguments if isinstance(argument, Files)]


def _handle_word(machine: ParseMachine, token: str) -> None:
    """A flag is never a file, known or not; a dash alone is none, but standard input."""
    for files in _files(machine):
        files.room = token == "-" or not token.startswith("-")
    _handle(machine, token)


def _end_files(machine: ParseMachine) -> None:
    """One file at least is missing where there is none, unless help was asked for."""
    for files in _files(machine):
        files.room = not (files._value or machine.initial.flags["--help"].value)
    _complete_context(machine)


ParseMachine.handle = _handle_word  # type: ignore[assignment, method-assign]
ParseMachine.complete_context = _end_files  # type: ignore[assignment, method-assign]


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
@handle_errors
def transcribe(
    _: Context, files: list[str], language: str = "", context: str = "", format: str = "text", output: str = ""
) -> None:
    """Transcribe files and URLs; one that fails does not stop the rest, and makes the exit code 1."""
    from runtime.ops.transcribe import TranscribeOptions, transcribe_files

    order = TranscribeOptions(tuple(files), language, context, format, Path(output) if output else None)
    failures = transcribe_files(order, load_settings())
    if failures:
        raise Exit(f"transcribe: {failures} of {len(files)} failed", code=1)


@task(help={"output": "directory of the checkpoint; default: the embedded one is replaced"})
@handle_errors
def train_demo(_: Context, output: str = "") -> None:
    """Train the embedded demo model from nothing, judge it and write its card (two hours on two cores)."""
    from runtime.demo_recipe.train import produce

    produce(Path(output) if output else None, load_settings())


@task(
    help={
        "config": "config.json of a Qwen3-ASR model, or a directory that has it",
        "output": "directory to make",
        "tokenizer": "directory with tokenizer and processor files; default: that of the config",
        "dtype": "bfloat16, float16 or float32",
    }
)
@handle_errors
def random_weights(_: Context, config: str, output: str, tokenizer: str = "", dtype: str = "bfloat16") -> None:
    """Make a checkpoint of a model's full size with random weights, to measure time and memory; its text is noise."""
    from runtime.measure.random_weights import draw, write
    from runtime.progress import progress_bar

    described, made = Path(config).expanduser(), Path(output).expanduser().absolute()
    files = Path(tokenizer).expanduser() if tokenizer else described if described.is_dir() else described.parent
    blueprint = draw(described, files, dtype=dtype)
    print(f"{blueprint.tensors} tensors in {dtype}, {blueprint.size} bytes, in {len(blueprint.shards)} files")
    with progress_bar("Writing", blueprint.size / 2**20, unit="MiB") as bar:
        write(blueprint, made, on_bytes=lambda count: bar.advance(count / 2**20))
    print(f"Written to {made}. Its text is noise, up to ASR_MAX_NEW_TOKENS: ASR_MODEL={made} invoke bench")
    print("No weights.lock vouches for it; a server starts with it only with ASR_ALLOW_UNVERIFIED_WEIGHTS=true")


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
        raise Exit("fetch-weights: interrupted; what was fetched is kept → invoke fetch-weights", code=130) from None
    if fault:  # which is no failure: an intranet has no way to them
        print(f"Without the official clips, which invoke smoke judges by: {fault}", file=sys.stderr)
    print(catalog.usage(settings, spot))


@task(help={"write-lock": "record in weights.lock what is there, for weights that were copied by hand"})
@handle_errors
def verify_weights(_: Context, write_lock: bool = False) -> None:
    """Compare the sums of all weights with weights.lock; exit code 1 where a file is missing, cut off or changed."""
    from runtime.weights import verify

    verify.verify_weights(load_settings(), write_lock=write_lock)
