"""Where a fetch puts the weights together, .fetching beside the model's directory, and how they come into place."""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError
from runtime.weights.catalog import ModelLocation, shown
from runtime.weights.hubs import RemoteFile


@dataclass(frozen=True)
class Workshop:
    """The folders of one model: `parts` of files, whole files that are `ready`, and what a hub's client keeps."""

    root: Path

    @property
    def parts(self) -> Path:
        """Files that are not whole."""
        return self.root / "parts"

    @property
    def ready(self) -> Path:
        """Files that are whole, and nothing else: this becomes the model's directory."""
        return self.root / "ready"

    @property
    def scratch(self) -> Path:
        """Whatever a hub's client wants to keep."""
        return self.root / "client"

    @property
    def former(self) -> Path:
        """The model's directory that is being replaced."""
        return self.root / "former"

    def part(self, file: RemoteFile) -> Path:
        """Where a file is fetched into. Its name tells the contents apart, so that no two revisions are mixed."""
        return self.parts / f"{file.name}.{(file.sha256 or file.blob or 'unknown')[:16]}.{file.size}"

    def held(self, file: RemoteFile) -> int:
        """Bytes of a file that need not be fetched."""
        part = self.part(file)
        return min(part.stat().st_size, file.size) if part.exists() else 0

    def keep_only(self, files: Iterable[RemoteFile]) -> None:
        """Remove what fetches of other files left."""
        files = tuple(files)
        kept = {self.part(file) for file in files} | {self.ready / file.name for file in files}
        for path in (*self.parts.iterdir(), *self.ready.iterdir()):
            if path not in kept:
                path.unlink()

    def take(self, path: Path, name: str) -> None:
        """Make a file that is in place ready too. As a second name for it, so that it costs no room."""
        target = self.ready / name
        if path == target:
            return
        target.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:  # some file systems know no second names
            shutil.copyfile(path, target)

    def finish(self, file: RemoteFile) -> None:
        """A file is whole."""
        self.part(file).replace(self.ready / file.name)

    def put_in_place(self, directory: Path) -> None:
        """Make what is ready the model's directory, in place of the one that was there. Of that, what the hub does not
        have is kept.

        Raises KitError where it cannot be done, with the directory as it was.
        """
        try:
            if directory.is_dir():
                directory.rename(self.former)
            try:
                self.ready.rename(directory)
            finally:
                self.settle(directory)
        except OSError as error:
            reason = f"cannot be put in place: {error.strerror}"
            raise KitError(shown(directory), reason, f"what was fetched is kept in {shown(self.ready)}") from None
        shutil.rmtree(self.root, ignore_errors=True)

    def settle(self, directory: Path) -> None:
        """End a replacement that was begun: without a new directory the former one comes back, with one it gives what
        only it has."""
        if not self.former.is_dir():
            return
        if not directory.exists():
            self.former.rename(directory)
            return
        for path in self.former.iterdir():
            if not (directory / path.name).exists():
                path.rename(directory / path.name)
        shutil.rmtree(self.former)


@contextmanager
def workshop(spot: ModelLocation) -> Iterator[Workshop]:
    """The model's workshop, for one fetch at a time. Raises KitError where it cannot be made, or is in use."""
    _check_directory(spot.directory)
    bench = Workshop(spot.fetching / spot.directory.name)
    try:
        spot.fetching.mkdir(parents=True, exist_ok=True)
        # Never removed: whoever waits for a file that is removed and made again waits for two files.
        guard = (spot.fetching / "lock").open("a")
    except OSError as error:
        raise KitError(shown(spot.fetching), f"cannot be made: {error.strerror}", "set ASR_MODEL elsewhere") from None
    with guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            advice = f"wait until it ends, or see which process it is: fuser {shown(Path(guard.name))}"
            raise KitError(shown(spot.directory), "another fetch-weights is at work", advice) from None
        except OSError as error:
            raise KitError(shown(spot.fetching), f"cannot be locked: {error.strerror}") from None
        try:
            for folder in (bench.parts, bench.ready):
                folder.mkdir(parents=True, exist_ok=True)
            bench.settle(spot.directory)
            yield bench
        except OSError as error:
            reason = f"cannot be worked in: {error.strerror}{_named(error)}"
            raise KitError(shown(bench.root), reason, "invoke fetch-weights goes on with what is there") from None


def _check_directory(directory: Path) -> None:
    """Refuse what could not be put in place in the end."""
    if directory.exists() and not directory.is_dir():
        raise KitError(shown(directory), "is a file, expected a directory", "move it away, or change ASR_MODEL")
    if directory.is_dir() and directory.stat().st_dev != directory.parent.stat().st_dev:
        advice = f"mount {directory.parent} instead, so that the directory can be replaced at once"
        raise KitError(shown(directory), "is a file system of its own", advice)


def _named(error: OSError) -> str:
    return f": {Path(str(error.filename)).name}" if error.filename else ""
