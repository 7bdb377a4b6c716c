"""`invoke transcribe`: many files in, one transcript each, to standard output or to files."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from env.settings import Settings
from runtime.errors import KitError, UsageError
from runtime.formats import FORMATS
from runtime.languages import resolve
from runtime.loading import loading
from runtime.ops.files import write_whole
from runtime.progress import progress
from runtime.transcriber import Failure, Request
from runtime.transcript import Transcript


@dataclass(frozen=True)
class Order:
    """What `invoke transcribe` was told; `output` None: standard output."""

    files: tuple[str, ...]
    language: str
    context: str
    format: str
    output: Path | None


def transcribe_files(order: Order, settings: Settings) -> int:
    """Transcribe all files of the order; returns how many failed, after a line for each on standard error.

    Raises UsageError before anything is loaded where the order contradicts itself, KitError where the model cannot be
    loaded.
    """
    _check(order)
    targets = _targets(order)
    timed = FORMATS[order.format].timed
    requests = [Request(file, order.language or None, order.context, timed) for file in order.files]
    failures = 0
    with loading(settings) as transcriber:
        # What is wrong with every file is said once, before the first.
        transcriber.prompter.write(context=order.context, language=transcriber.prompter.language(order.language))
        with progress("Transcribing", unit="s of audio") as bar:
            outcomes = transcriber.transcribe_all(requests, on_audio=bar.expect, on_segment=bar.advance)
            for file, target, outcome in zip(order.files, targets, outcomes, strict=True):
                try:
                    _deliver(outcome, file, target, order)
                except KitError as error:
                    failures += 1
                    print(error, file=sys.stderr)
    return failures


def _check(order: Order) -> None:
    if order.format not in FORMATS:
        raise UsageError("--format", f"{order.format!r} is none of {', '.join(FORMATS)}")
    resolve(order.language)
    if order.output is None and len(order.files) > 1 and order.format != "text":
        raise UsageError("--output", f"is needed for several files as {order.format}", "--output DIR")
    if order.output is not None and order.output.exists() and not order.output.is_dir():
        raise UsageError("--output", f"{order.output} is a file, expected a directory")


def _targets(order: Order) -> Sequence[Path | None]:
    """Where each transcript goes: talk.wav → talk.txt, or talk.wav.txt beside another talk."""
    if order.output is None:
        return [None] * len(order.files)
    names = [Path(urlsplit(file).path if "://" in file else file).name or "audio" for file in order.files]
    stems = Counter(Path(name).stem for name in names)
    bases = [name if stems[Path(name).stem] > 1 else Path(name).stem for name in names]
    for base, count in Counter(bases).items():
        if count > 1:
            raise UsageError("--output", f"{count} of the files are called {base!r}, and would overwrite each other")
    return [order.output / f"{base}.{FORMATS[order.format].extension}" for base in bases]


def _deliver(outcome: Transcript | Failure, file: str, target: Path | None, order: Order) -> None:
    """Write or print a transcript; raises the failure where there is none."""
    if isinstance(outcome, Failure):
        raise outcome.error
    content = FORMATS[order.format].write(outcome)
    if target is not None:
        write_whole(target, content)
        print(f"{file} → {target}")
    else:
        header = f"==> {file} <==\n" if len(order.files) > 1 else ""
        print(header + content, end="", flush=True)
    for warning in _warnings(outcome):
        print(f"{file}: {warning}", file=sys.stderr)


def _warnings(transcript: Transcript) -> list[str]:
    """What a reader of the text alone would not learn."""
    warnings = []
    if transcript.truncated:
        cut = [f"{s.start:.1f}–{s.end:.1f} s" for s in transcript.segments if s.truncated]
        warnings.append(f"text is missing: the token limit cut off {', '.join(cut)} → raise ASR_MAX_NEW_TOKENS")
    if transcript.repeated:
        warnings.append(f"{transcript.repeated} characters of endless repetition left out")
    return warnings
