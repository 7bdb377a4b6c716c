"""The model at work: smoke, transcribe, train-demo."""

import json
from pathlib import Path

from invoke import Context, Exit, task

from env import stacks
from env.loading import load_settings, under_project
from runtime.ops.variadic import VariadicTask
from runtime.tasks.foreseeing import foreseeing


@task
@foreseeing
def smoke(_: Context) -> None:
    """Transcribe the bundled clips and compare; exit code 0 only if every clip passes."""
    from runtime.measure import present
    from runtime.measure import smoke as measure
    from runtime.measure.clips import bundled_clips
    from runtime.ops.files import write_whole
    from runtime.ops.present import console
    from runtime.progress import progress, waiting
    from runtime.transcriber import open_transcriber

    settings = load_settings()
    out = console()
    with waiting(f"Loading {settings.model}") as loaded, open_transcriber(settings) as transcriber:
        loaded()
        clips = bundled_clips()
        out.print(f"On {transcriber.device.name} ({transcriber.device.description()}). {transcriber.device.reason}")
        verdicts = []
        with progress("Transcribing", len(clips), unit="clips") as bar:
            for verdict in measure.run(transcriber, clips):
                verdicts.append(verdict)
                bar.advance(1)
        report = measure.report(transcriber, verdicts, stacks.installed_versions())
    path = settings.out_dir / "smoke.json"
    write_whole(under_project(path), json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    out.print(present.verdicts(verdicts))
    out.print(f"Written to {path}")
    failed = [verdict for verdict in verdicts if not verdict.passed]
    for verdict in failed:
        out.print(f"{verdict.clip}: {verdict.fault}", style="red")
    if failed:
        raise Exit(
            f"smoke: {len(failed)} of {len(verdicts)} clips failed → invoke versions, then invoke config", code=1
        )


@task(
    klass=VariadicTask,
    help={
        "files": "audio files and http(s) URLs",
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
    from runtime.ops.batch import Order, transcribe_files

    order = Order(tuple(files), language, context, format, Path(output) if output else None)
    failures = transcribe_files(order, load_settings())
    if failures:
        raise Exit(f"transcribe: {failures} of {len(files)} failed", code=1)


@task(help={"output": "directory of the checkpoint; default: the embedded one is replaced"})
@foreseeing
def train_demo(_: Context, output: str = "") -> None:
    """Train the embedded demo model from nothing, judge it and write its card (two hours on two cores)."""
    from runtime.demo.produce import produce

    produce(Path(output) if output else None, load_settings())
