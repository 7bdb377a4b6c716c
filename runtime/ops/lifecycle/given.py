"""Files of this host that the container reads, keys and certificates: with the directories that they are in.

A file that is mounted alone stays the one that it was, whatever is put in its place on the host. So directories are
mounted, those of links too, as far as they hold nothing but such files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from env.field import variable
from env.loading import PROJECT, under_project
from env.settings import Settings

FILES = ("keys_file", "admin_key_file", "tls_cert_file", "tls_key_file")  # settings
TARGET = Path("/kit/given")  # below it the container has them by their paths on the host
# These, and what is above them, hold more than the container may read.
SHARED = (PROJECT, Path("/etc"), Path("/tmp"), Path("/var/tmp"))


@dataclass(frozen=True)
class Given:
    """A file as the container has it: its path there, and what is mounted for it. `alone`: not with its directory, so
    that another file in its place is not seen."""

    path: str
    sources: tuple[Path, ...]
    alone: bool = False

    @property
    def mounts(self) -> list[str]:
        """As compose has them."""
        return [f"{source}:{TARGET}{source}:ro" for source in self.sources]


def given_paths(settings: Settings) -> dict[str, Path]:
    """The files that the settings name, by setting."""
    return {name: under_project(path) for name in FILES if (path := getattr(settings, name))}


def given(settings: Settings, owner: tuple[int, int]) -> dict[str, Given]:
    """The same as the container has them, whose user and group `owner` is."""
    return {name: _place(path, owner) for name, path in given_paths(settings).items()}


def warnings(settings: Settings, owner: tuple[int, int]) -> list[str]:
    """What an operator should know of files that are mounted alone."""
    words = "is mounted alone: what is put in its place is not seen before make restart"
    advice = f"write into it, or keep it in a directory for such files that user {owner[0]} may enter"
    paths = given_paths(settings)
    return [
        f"{variable(name)}: {paths[name]} {words} → {advice}"
        for name, file in given(settings, owner).items()
        if file.alone
    ]


def _place(path: Path, owner: tuple[int, int]) -> Given:
    directory, name = path.parent, Path(path.name)
    if directory.is_symlink():
        directory, name = directory.parent, directory.name / name
    directory = directory.resolve()
    sources = set(_directories(directory, name)) if path.is_file() else set()
    if not sources or any(_holds_more(source) or not _may_enter(source, owner) for source in sources):
        return Given(f"{TARGET}{path}", (path,), alone=True)
    sources = {source for source in sources if sources.isdisjoint(source.parents)}
    return Given(f"{TARGET}{directory / name}", tuple(sorted(sources)))


def _directories(directory: Path, name: Path) -> Iterator[Path]:
    """The directories of a file and of each link to it; none where a link is absolute, which leads elsewhere in the
    container."""
    found, todo = [directory], list(name.parts)
    while todo:
        part = todo.pop(0)
        step = directory / part
        if part != ".." and step.is_symlink():
            target = step.readlink()
            if target.is_absolute():
                return
            found.append(directory)
            todo[:0] = target.parts
        else:
            directory = directory.parent if part == ".." else step
    yield from (*found, directory.parent)


def _holds_more(directory: Path) -> bool:
    return any(place == directory or directory in place.parents for place in (*SHARED, Path.home()))


def _may_enter(directory: Path, owner: tuple[int, int]) -> bool:
    """Whether the container's user, who has no capabilities, may use what is in a directory."""
    found = directory.stat()
    if found.st_uid == owner[0]:
        return bool(found.st_mode & 0o100)
    return bool(found.st_mode & (0o010 if found.st_gid == owner[1] else 0o001))
