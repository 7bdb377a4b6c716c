"""What operators type: `invoke --list` shows all. A task parses, calls one function and prints."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from invoke import Context, Exit, task

from env import describe, locking, stacks
from env.settings import load_settings, under_project
from runtime.errors import KitError
from runtime.ops.variadic import VariadicTask

Body = TypeVar("Body", bound=Callable[..., None])


def foreseeing(body: Body) -> Body:
    """Let a task end with one line, not with a traceback, where it fails for a reason that was foreseen."""

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except KitError as error:
            raise Exit(str(error), code=error.exit_code) from None

    return run  # type: ignore[return-value]


@task
@foreseeing
def config(_: Context) -> None:
    """Print every setting, its value and where it came from."""
    from runtime.ops import present

    present.console().print(present.settings(describe.describe(load_settings())))


@task(help={"stack": "npu, vllm or cpu; default: the one that is installed"})
@foreseeing
def versions(_: Context, stack: str = "") -> None:
    """Print installed against pinned versions; exit code 1 on a difference that matters."""
    from runtime.ops import present

    name = stack or stacks.active_stack()
    differences = stacks.compare(name)
    present.console().print(present.differences(name, differences))
    if any(difference.severity == "matters" for difference in differences):
        raise Exit(f"{name}: not the pinned stack → python env/install.py {name}", code=1)


@task
@foreseeing
def lock(_: Context) -> None:
    """Resolve env/stacks.toml into the locks under env/locks (needs the package index and uv)."""
    for path in locking.write_locks():
        print(path.name)


@task
@foreseeing
def readme(_: Context) -> None:
    """Write the tables that come from the settings and the stacks into README.md and README.zh-CN.md."""
    from runtime.ops import readme as writer

    for path in writer.refresh():
        print(f"{path.name} renewed")


@task
@foreseeing
def smoke(_: Context) -> None:
    """Transcribe the bundled clips and compare; exit code 0 only if every clip passes."""
    from runtime.measure import smoke as measure
    from runtime.ops import present
    from runtime.ops.files import write_whole
    from runtime.progress import progress, waiting
    from runtime.transcriber import open_transcriber

    settings = load_settings()
    out = present.console()
    with waiting(f"Loading {settings.model}") as loaded, open_transcriber(settings) as transcriber:
        loaded()
        clips = measure.bundled_clips()
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
