"""Audio that comes through a pipe: `-`, /dev/stdin, a named pipe, what a shell's <(…) names.

It is read whole before it is decoded: what decodes goes back and forth in a file, and a pipe cannot.
"""

import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO
from urllib.parse import urlsplit

from env.errors import KitError, UsageError
from env.settings import Settings
from runtime import audio, stdio
from runtime.audio import Audio, Limits
from runtime.audio.download import STORAGE_ADVICE
from runtime.files import write_whole
from runtime.formats import FORMATS
from runtime.languages import resolve
from runtime.model.prompt import is_unicode
from runtime.progress import progress_bar
from runtime.stdio import OutputError
from runtime.transcriber import FailedRequest, Request, Source, transcriber_with_progress
from runtime.transcript import Transcript

STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
NAME = "stdin"
IN_MEMORY = 1 << 20  # bytes; the rest is in a file without a name
PIECE = 1 << 16  # bytes a read


@dataclass(frozen=True)
class Piped:
    """A file that can be read once. `path` None is standard input; `name` is what people are shown; `most_mib` is how
    much it may hold, in MiB."""

    path: Path | None
    name: str
    most_mib: int

    def load(self, *, limits: Limits) -> Audio:
        """Read and decode it. Raises KitError where it cannot be read or kept, or holds too much, and what
        `runtime.audio.load` raises."""
        try:
            with self._open() as pipe:
                if stat.S_ISREG(os.fstat(pipe.fileno()).st_mode):  # behind <, which can be read as any file
                    return audio.load(pipe, limits=limits, name=self.name)
                with SpooledTemporaryFile(max_size=IN_MEMORY) as body:
                    self._copy(pipe, body)
                    return audio.load(body, limits=limits, name=self.name)
        except OSError as error:
            raise KitError(self.name, f"cannot be read: {error.strerror}") from error

    def _open(self) -> IO[bytes]:
        if self.path:
            return self.path.open("rb")
        number = os.dup(sys.stdin.fileno())
        os.set_blocking(number, True)  # what shares it may have left it otherwise, and then nothing looks like the end
        return os.fdopen(number, "rb")

    def _copy(self, pipe: IO[bytes], body: IO[bytes]) -> None:
        most_bytes, copied = self.most_mib << 20, 0
        while piece := pipe.read(PIECE):
            copied += len(piece)
            if copied > most_bytes:
                reason = f"holds more than {self.most_mib} MiB, the limit of what comes through a pipe"
                raise KitError(self.name, reason, "ASR_UPLOAD_MAX_MIB sets it; a file may be of any size")
            try:
                body.write(piece)
            except OSError as error:
                raise KitError(self.name, f"cannot be stored: {error.strerror}", STORAGE_ADVICE) from error


def is_standard_input(file: str) -> bool:
    """Whether a file's name stands for standard input."""
    return file in STANDARD_INPUT


def check_standard_input() -> None:
    """Raises UsageError where nothing can come from standard input."""
    if sys.stdin is None:
        raise UsageError("-", "standard input is closed", "ffmpeg … | invoke transcribe -")
    if sys.stdin.isatty():
        raise UsageError("-", "standard input is a terminal, where no audio comes from", "invoke transcribe - < FILE")


def is_pipe(file: str) -> bool:
    """Whether a path leads to a pipe."""
    try:
        return Path(file).is_fifo()
    except OSError:  # such as no permission, which is told by whoever opens it
        return False


@dataclass(frozen=True)
class TranscribeOptions:
    """What `invoke transcribe` was told; `output` None: standard output."""

    files: tuple[str, ...]
    language: str
    context: str
    format: str
    output: Path | None


def transcribe_files(order: TranscribeOptions, settings: Settings) -> int:
    """Transcribe all files of the order; returns how many failed, after a line for each on standard error.

    Raises UsageError before anything is loaded where the order contradicts itself, KitError where the model cannot be
    loaded.
    """
    _check(order)
    names = [NAME if is_standard_input(file) else file for file in order.files]
    targets = _targets(names, order)
    timed = FORMATS[order.format].timed
    sources = [_source(file, name, settings) for file, name in zip(order.files, names, strict=True)]
    requests = [Request(source, order.language or None, order.context, timed) for source in sources]
    failures = 0
    with transcriber_with_progress(settings) as transcriber:
        # What is wrong with every file is said once, before the first.
        transcriber.prompt_builder.build(
            context=order.context, language=transcriber.prompt_builder.language(order.language)
        )
        with progress_bar("Transcribing", unit="s of audio") as bar:
            outcomes = transcriber.transcribe_all(requests, on_audio=bar.expect, on_segment=bar.advance)
            for name, target, outcome in zip(names, targets, outcomes, strict=True):
                try:
                    _deliver(outcome, name, target, order)
                except OutputError as error:
                    failures += 1
                    _report(f"{name}: {error}")
                except KitError as error:
                    failures += 1
                    _report(str(error))
    return failures


def _check(order: TranscribeOptions) -> None:
    for flag, text in (("--format", order.format), ("--language", order.language), ("--context", order.context)):
        if not is_unicode(text):  # bytes of another encoding are lone surrogates (PEP 383)
            raise UsageError(flag, f"{text!r} holds bytes that are no text in UTF-8", "type it again")
    if order.format not in FORMATS:
        raise UsageError("--format", f"{order.format!r} is none of {', '.join(FORMATS)}")
    resolve(order.language)
    if order.output is None and len(order.files) > 1 and order.format != "text":
        raise UsageError("--output", f"is needed for several files as {order.format}", "--output DIR")
    if order.output is not None and order.output.exists() and not order.output.is_dir():
        raise UsageError("--output", f"{order.output} is a file, expected a directory")
    if standard_input := [file for file in order.files if is_standard_input(file)]:
        if len(standard_input) > 1:
            raise UsageError(" ".join(standard_input), "standard input can be read once", "name it once")
        check_standard_input()


def _source(file: str, name: str, settings: Settings) -> Source:
    if is_standard_input(file):
        return Piped(None, name, settings.upload_max_mib)
    if "://" not in file and is_pipe(file):
        return Piped(Path(file), name, settings.upload_max_mib)
    return file


def _targets(files: Sequence[str], order: TranscribeOptions) -> Sequence[Path | None]:
    """Where each transcript goes: talk.wav → talk.txt, or talk.wav.txt beside another talk."""
    if order.output is None:
        return [None] * len(files)
    names = [_file_name(file) for file in files]
    stems = Counter(Path(name).stem for name in names)
    bases = [name if stems[Path(name).stem] > 1 else Path(name).stem for name in names]
    for base, count in Counter(bases).items():
        if count > 1:
            raise UsageError("--output", f"{count} of the files are called {base!r}, and would overwrite each other")
    return [order.output / f"{base}.{FORMATS[order.format].extension}" for base in bases]


def _file_name(file: str) -> str:
    try:
        return Path(urlsplit(file).path if "://" in file else file).name or "audio"
    except ValueError:  # a malformed URL, which is refused when its turn comes
        return "audio"


def _deliver(outcome: Transcript | FailedRequest, file: str, target: Path | None, order: TranscribeOptions) -> None:
    """Write or print a transcript; raises the failure where there is none, OutputError where it cannot be printed."""
    if isinstance(outcome, FailedRequest):
        raise outcome.error
    content = FORMATS[order.format].write(outcome)
    if target is not None:
        write_whole(target, content)
        stdio.write(f"{file} → {target}\n")
    else:
        header = f"==> {file} <==\n" if len(order.files) > 1 else ""
        stdio.write(header + content)
        if lost := stdio.unshown(content):
            reason = f"{lost} characters are not in {sys.stdout.encoding}, and shown as ?"
            _report(f"{file}: {reason} → --output DIR writes UTF-8; or set LC_ALL=C.UTF-8")
    for warning in _warnings(outcome):
        _report(f"{file}: {warning}")


def _report(words: str) -> None:
    print(stdio.for_reading(words, sys.stderr), file=sys.stderr)


def _warnings(transcript: Transcript) -> list[str]:
    """What a reader of the text alone would not learn."""
    warnings = []
    if transcript.truncated:
        cut = [f"{s.start:.1f}–{s.end:.1f} s" for s in transcript.segments if s.truncated]
        warnings.append(f"text is missing: the token limit cut off {', '.join(cut)} → raise ASR_MAX_NEW_TOKENS")
    if transcript.repeated:
        warnings.append(f"{transcript.repeated} characters of endless repetition left out")
    return warnings
