"""Any audio that comes in → 16 kHz mono float32, whole or refused. Helper processes do the work (`decode`)."""

import io
import mmap
import os
import stat
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import numpy as np
import numpy.typing as npt

from env.errors import KitError
from runtime import sandbox, urls
from runtime.audio import download
from runtime.audio.timeline import PlayerClock
from runtime.sandbox import Cancellation, ExceededError, HelperLimits, RefusedError, UnavailableError

SAMPLE_RATE = 16_000  # Hz, what the feature extractor takes
SAMPLE_BYTES = 4
FORMATS = (
    "wav, flac, ogg (opus, vorbis), mp3, aac, m4a, mp4 and webm; also 3gp, ac3, aiff, amr, au, avi, caf, eac3, flv, "
    "mkv, mov, mpeg, ts, w64, wma and wmv"
)

FETCHED_IN_MEMORY = 1 << 20  # bytes of what a URL answers; the rest is in a file without a name

# What a helper may take to read a file: of memory MEMORY and more for each second that may last, as the tables of a
# file of many packets do (48 bytes for each of 340 a second), and for the bytes of it; of CPU time likewise.
MEMORY, MEMORY_PER_SECOND, MEMORY_PER_BYTE = 128 << 20, 16 << 10, 1 / 8
CPU_SECONDS, CPU_PER_SECOND, CPU_PER_BYTE = 10.0, 1 / 20, 1 / (8 << 20)
PATIENCE = 4.0  # seconds for each of CPU time, on a machine that does much else

Samples = npt.NDArray[np.float32]


class AudioError(KitError):
    """Audio that cannot be used, with the reason."""


class TooLongError(AudioError):
    """Audio that lasts longer than it may."""


class UnreadableError(KitError):
    """Audio that cannot be read now, for want of memory, processes or descriptors; it may be in order."""


@dataclass(frozen=True)
class Limits:
    """What is accepted. Seconds and bytes; the last three are for URLs."""

    longest_seconds: float = 4 * 3600.0
    shortest_seconds: float = 0.1
    url_seconds: float = 60.0
    url_bytes: int = 512 << 20
    allow_private_urls: bool = False


@dataclass(frozen=True, eq=False)
class Audio:
    """`samples` are 16 kHz mono float32 of shape (n,), within ±1; `source` is the name to show to people.

    Where a track begins late or pauses, the samples are zero. What is left between them and the player's clock, such as
    the drift of a recorder, is in `clock`.
    """

    samples: Samples
    source: str
    clock: PlayerClock = field(default_factory=PlayerClock)

    @property
    def seconds(self) -> float:
        """When the sound ends on the player's clock."""
        return self.time_at(len(self.samples))

    def time_at(self, sample: int) -> float:
        """Seconds on the player's clock at which a sample is heard; `sample / SAMPLE_RATE` in most files."""
        return self.clock.time_at(sample / SAMPLE_RATE)


def load(
    source: str | Path | bytes | IO[bytes],
    *,
    limits: Limits,
    name: str = "audio",
    cancellation: Cancellation | None = None,
) -> Audio:
    """Audio from a path, an http(s) URL, an open seekable file or the bytes of one, which errors call `name`.

    Any sample rate, 1 to 8 channels, in one of FORMATS; of a video, the sound track that players choose. The result
    lies on the player's clock, with silence where a track begins late or pauses; bytes behind the end of a file are
    left out. An open file is read from its start and stays open. Raises AudioError for what is missing, unreadable,
    damaged, cut short, too short, or takes more memory or time to read than any file should, TooLongError for what is
    too long, UnreadableError where the system lacks what reading takes, `runtime.sandbox.CancelledError`, and what
    `fetched` raises for a URL that cannot be had.
    """
    if isinstance(source, str) and "://" in source:
        with SpooledTemporaryFile(max_size=FETCHED_IN_MEMORY) as body:
            fetched(source, body, limits=limits)
            return _load(body, urls.redact_url(source), limits, cancellation)
    if isinstance(source, bytes):
        return _load(io.BytesIO(source), name, limits, cancellation)
    if not isinstance(source, str | Path):
        return _load(source, name, limits, cancellation)
    with _open(Path(source), str(source)) as file:
        return _load(file, str(source), limits, cancellation)


def fetched(url: str, into: IO[bytes], *, limits: Limits) -> None:
    """Fetch what is at an http(s) URL, within the limits, into a file. Raises `runtime.audio.download.FetchError`, and
    `runtime.audio.download.StorageError` where the file takes no more."""
    download.fetch(
        url,
        into,
        seconds=limits.url_seconds,
        most_bytes=limits.url_bytes,
        permitted=download.allow_any if limits.allow_private_urls else download.is_public,
    )


def _open(path: Path, name: str) -> IO[bytes]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        raise AudioError(name, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise AudioError(name, "is a directory" if stat.S_ISDIR(mode) else "is not a regular file")


def _load(file: IO[bytes], name: str, limits: Limits, cancellation: Cancellation | None) -> Audio:
    arguments = {
        "name": name,
        "longest_seconds": limits.longest_seconds,
        "shortest_seconds": limits.shortest_seconds,
        "cpu_per_second": CPU_PER_SECOND,
    }
    try:
        into = sandbox.memory_file("samples")
    except UnavailableError as error:
        raise _unreadable(error, name) from error
    try:
        allowed = bounds(file.seek(0, io.SEEK_END), limits)
        found = sandbox.call(
            "runtime.audio.decode:decode", file, into, arguments, bounds=allowed, cancellation=cancellation
        )
        return _mapped(into, name, samples=found["samples"], corrections=found["corrections"])
    except RefusedError as error:
        raise REFUSALS[error.kind](*error.arguments) from None
    except ExceededError as error:
        raise AudioError(name, str(error), "convert it, such as with `ffmpeg -i FILE clean.wav`") from None
    except UnavailableError as error:
        raise _unreadable(error, name) from error
    except OSError as error:
        raise AudioError(name, f"cannot be read: {error.strerror or error}") from error
    finally:
        os.close(into)


def _unreadable(error: OSError, name: str) -> UnreadableError:
    return UnreadableError(name, f"cannot be read now: {error.strerror or error}", "try again later")


def bounds(size: int, limits: Limits) -> HelperLimits:
    """For a file of so many bytes."""
    longest = limits.longest_seconds
    cpu_seconds = CPU_SECONDS + CPU_PER_BYTE * size
    return HelperLimits(
        memory=int(MEMORY + MEMORY_PER_SECOND * longest + MEMORY_PER_BYTE * size),
        output=int(2 * (longest + 1) * SAMPLE_RATE * SAMPLE_BYTES),
        cpu_seconds=cpu_seconds,
        seconds=PATIENCE * (cpu_seconds + CPU_PER_SECOND * longest),
    )


def _mapped(file: int, name: str, *, samples: int, corrections: int) -> Audio:
    """What `runtime.audio.decode` has written: samples, then the positions and times of the clock."""
    sandbox.seal(file)
    content = mmap.mmap(file, 0)
    clock = PlayerClock(array("d"), array("d"))
    start, length = samples * SAMPLE_BYTES, corrections * array("d").itemsize
    clock.positions.frombytes(content[start : start + length])
    clock.times.frombytes(content[start + length : start + 2 * length])
    return Audio(np.frombuffer(content, np.float32, samples), name, clock)


REFUSALS = {kind.__name__: kind for kind in (AudioError, TooLongError)}
