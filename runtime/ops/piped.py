"""Audio that comes through a pipe: `-`, /dev/stdin, a named pipe, what a shell's <(…) names.

It is read whole before it is decoded: what decodes goes back and forth in a file, and a pipe cannot.
"""

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from env.errors import KitError, UsageError
from runtime import audio
from runtime.audio import Audio, Limits
from runtime.audio.download import STORAGE_ADVICE

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
