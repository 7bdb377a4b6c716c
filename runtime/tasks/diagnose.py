"""Looking after a host: doctor, support-bundle."""

import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context, Exit, task
from invoke.parser import Argument
from invoke.tasks import Task

from env.errors import KitError, UsageError
from env.settings import DEMO, Settings
from env.sources import load_settings, under_project
from runtime.tasks.command_line import Files
from runtime.tasks.errors import handle_errors

if TYPE_CHECKING:
    from runtime.measure.accuracy.dataset import DataSet

ADVICE = "invoke accuracy manifest.jsonl, or the directory of a data set (invoke accuracy --help)"
INTERRUPTED = 130  # exit code, as a shell has it for Ctrl-C


@task(
    help={
        "root": "directory to examine instead of this host, such as an unpacked support bundle",
        "json": "print JSON instead of a table",
        "quick": "only what takes no more than a moment: no checksums, no hub, nothing on the NPU",
    }
)
@handle_errors
def doctor(_: Context, root: str = "/", json: bool = False, quick: bool = False) -> None:
    """Examine the host, or the container that this runs in; exit code 1 if a check fails."""
    from runtime.host.probe import Host
    from runtime.ops.doctor import checks, examine_host
    from runtime.ops.doctor.machine import hostname
    from runtime.ops.support_bundle import settings_for
    from runtime.progress import status_line
    from runtime.tables import console

    with status_line("Examining") as line:
        host = Host(Path(root), on_wait=line.step)
        settings = settings_for(host)
        findings = examine_host(settings, host, quick=quick)
    if json:
        print(checks.document(findings, hostname(host)), end="")
    else:
        console().print(checks.table(findings))
    failed = [finding for finding in findings if finding.status == "fail"]
    if failed:
        codes = ", ".join(finding.code for finding in failed)
        raise Exit(f"doctor: {len(failed)} of {len(findings)} checks failed: {codes}", code=1)


@task(help={"output": "directory to write to; default: ASR_OUT_DIR"})
@handle_errors
def support_bundle(_: Context, output: str = "") -> None:
    """Collect what support needs to know into one archive: findings, versions, settings, logs; no secrets."""
    from env.sources import under_project
    from runtime.host.probe import Host
    from runtime.ops import support_bundle as support
    from runtime.progress import status_line

    settings = support.settings_for(Host())
    with status_line("Collecting") as line:
        folder = Path(output) if output else under_project(settings.out_dir)
        bundle = support.collect(settings, folder, on_wait=line.step)
    for name, about in bundle.contents.items():
        print(f"  {name}  {about}")
    print(f"Written to {bundle.path} ({bundle.path.stat().st_size / 1024:.0f} KiB), readable only by you.")
    print("Look into it before you hand it over: logs may hold what was said.")


class Data(Files):
    """A positional argument that may be left out, which Invoke's parser lacks, too."""

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name, help=help)
        self._value = [""]  # so that none is missing


class DataTask(Task):  # type: ignore[type-arg]  # generic in a way mypy cannot follow
    """A task whose parameter `data` may be left out."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with `data` among them replaced."""
        arguments = super().get_arguments(ignore_unknown_help)
        return [Data(a.name or "", help=a.help or "") if a.name == "data" else a for a in arguments]


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

    places = [place for place in data if place]
    if len(places) > 1:
        raise UsageError(" ".join(places), "expected one data set", "measure one after the other")
    if lang not in ("en", "zh"):
        raise UsageError("--lang", f"{lang!r} is neither en nor zh")
    if limit < 0:
        raise UsageError("--limit", f"{limit}, expected 1 or more")
    most = _share(fail_if_above) if fail_if_above else None
    settings = load_settings()
    found = _read(places, settings, split=split, language=language, url=url)
    ask = RunOptions(found, picked(found.items, limit), forced=force, fresh=fresh)
    opened = backends.over_http(url, settings) if url else backends.in_process(settings)
    directory = journal.folder(under_project(settings.out_dir), found)
    out, bars = console(), []
    with ExitStack() as shown:
        loading = shown.enter_context(status_line(f"Asking {url}" if url else f"Loading {settings.model}"))

        def begins(due: int) -> None:
            loading.finish()
            bars.append(shown.enter_context(progress_bar("Transcribing", due, unit="utterances")))

        listener = RunObserver(
            says=lambda words: out.print(words, markup=False, highlight=False, soft_wrap=True),
            begins=begins,
            heard=lambda _: bars[0].advance(1),
        )
        try:
            record = run(ask, opened, directory, listener)
        except KeyboardInterrupt:
            raise Exit("accuracy: interrupted before anything was transcribed", code=INTERRUPTED) from None
    tables.print_tables(record, out)
    for path in write(record, ask, settings, directory, lang):  # type: ignore[arg-type]
        out.print(f"Written to {os.path.relpath(path)}", markup=False, highlight=False, soft_wrap=True)
    faults = judge(record, most)
    if faults:
        advice = "" if record.head.complete else " → the same command goes on from there"
        interrupted = record.head.ended.startswith(INTERRUPTION)
        raise Exit(f"accuracy: {'; '.join(faults)}{advice}", code=INTERRUPTED if interrupted else 1)


def _read(places: list[str], settings: Settings, *, split: str, language: str, url: str) -> "DataSet":
    """The data set that is meant. Raises UsageError where none is, or where it cannot be read."""
    if places:
        from runtime.measure.accuracy.layouts import read

        return read(Path(places[0]), language=language or None, split=split)
    if url or settings.model != DEMO:
        what = "a server" if url else settings.model
        raise UsageError("DATA", f"expected a data set to measure {what} with", ADVICE)
    if split or language:
        raise UsageError("--split" if split else "--language", "is for a data set that is given", ADVICE)
    from runtime.measure.accuracy import published

    return published.data_set()


def _share(typed: str) -> float:
    """5% as 0.05."""
    if not re.fullmatch(r"\d{1,2}(\.\d+)?%|100%", typed):
        raise UsageError("--fail-if-above", f"{typed!r}, expected an error rate such as 5%")
    return float(typed.removesuffix("%")) / 100


@task(
    help={
        "output": "file to write; default: standard output",
        "here": "of the Python and the system that run this, instead of the image",
    }
)
@handle_errors
def sbom(_: Context, output: str = "", here: bool = False) -> None:
    """Print the software bill of materials (CycloneDX, JSON) of the image that the settings mean."""
    from env.stacks import active_stack
    from runtime.files import write_whole
    from runtime.ops import image_manifest
    from runtime.ops.deploy import image
    from runtime.ops.deploy.compose import host_settings
    from runtime.weights import lockfile

    try:
        from runtime.ops import sbom as bill
    except ModuleNotFoundError as error:
        reason = f"needs {error.name}, which is not installed"
        raise KitError("invoke sbom", reason, "python env/install.py host") from None
    settings = host_settings()
    weights = lockfile.read(under_project(settings.weights_lock))
    if here:
        found = image_manifest.collect(stack=active_stack(), commit=image.revision())
        text = bill.render(found, weights=weights)
    else:
        text = bill.render(bill.image_manifest(settings), image=image.image_name(settings), weights=weights)
    if output:
        write_whole(Path(output), text)
    else:
        print(text, end="")


@task(
    help={"output": "directory that the bundle goes into; default: out", "tar": "write one tar instead of a directory"}
)
@handle_errors
def bundle(_: Context, output: str = "", tar: bool = False) -> None:
    """Write all that a host without internet needs: image, weights, kit, settings, tools, checksums, installer."""
    from env.sources import under_project
    from runtime.ops import bundle as bundling
    from runtime.ops.deploy.compose import host_settings

    settings = host_settings()
    target = Path(output) if output else under_project(settings.out_dir)
    path = bundling.write(settings, target, as_tar=tar, say=lambda words: print(words, flush=True))
    unpack = f"tar -xf {path.name} && cd {path.stem}" if tar else f"cd {path.name}"
    signers = " --signers FILE" if settings.bundle_key else ""
    print(f"Written to {path}\nOn the other host: {unpack} && ./install.sh{signers}")
