"""The official clips, by address and sum, which the smoke test and the benchmark use with real weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

from env.errors import KitError
from runtime.progress import BYTES, progress_bar
from runtime.weights.catalog import RemoteClip, shown
from runtime.weights.hubs import Body, RemoteFile, Repository
from runtime.weights.hubs.http import check_name, opened
from runtime.weights.lockfile import digest
from runtime.weights.transfer import Download, Patience, patiently
from runtime.weights.verify import FACTS

PATIENCE = Patience(attempts=1)  # an intranet has no way to them, and nobody waits for them


def missing_clips(clips: Sequence[RemoteClip], directory: Path) -> list[RemoteClip]:
    """Those of the clips that are not in the directory, or with other contents."""
    return [clip for clip in clips if not _is_there(clip, directory / clip.name)]


def fetch_clips(clips: Sequence[RemoteClip], directory: Path, *, patience: Patience = PATIENCE) -> str:
    """Fetch what is missing of the clips into the directory; returns why not all are there, empty if they are."""
    missing = missing_clips(clips, directory)
    if not missing:
        return ""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for clip in missing:
            check_name(clip.name, clip.url)
        size = sum(clip.record.size for clip in missing)
        with progress_bar("Fetching the official clips", size, unit=BYTES) as bar:
            for clip in missing:
                part = directory / f".{clip.name}.part"
                file = RemoteFile(clip.name, clip.record.size, clip.record.sha256)
                download = Download(_Web(clip), file, part, bar.advance)
                found = patiently(
                    download.attempt, subject=clip.name, patience=patience, stop=Event(), say=lambda _: None
                )
                if found.record != clip.record:
                    part.unlink()
                    raise KitError(clip.url, f"has {found.record}, expected {clip.record}")
                part.replace(directory / clip.name)
    except KitError as error:
        return f"{error.subject}: {error.reason}"
    except OSError as error:
        return f"{shown(directory)} cannot be written: {error.strerror}"
    print(f"{shown(directory)}: {', '.join(clip.name for clip in missing)}")
    return ""


class _Web:
    """Where a clip is."""

    def __init__(self, clip: RemoteClip) -> None:
        self._url = clip.url
        self.source = Repository("the web", urlsplit(clip.url).netloc, "clips", "", listed_by=FACTS)

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        """The clip's bytes."""
        with opened(self.source, self._url, file, start) as found:
            yield found


def _is_there(clip: RemoteClip, path: Path) -> bool:
    try:
        return path.stat().st_size == clip.record.size and digest(path, size=clip.record.size).record == clip.record
    except OSError:
        return False
