"""Files of this host that the container reads, keys and certificates: with the directories that they are in.

A file that is mounted alone stays the one that it was, whatever is put in its place on the host. So directories are
mounted, those of links too, as far as they hold nothing but such files.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from env.field import variable
from env.settings import Settings
from env.sources import PROJECT, under_project

FILES = ("keys_file", "admin_key_file", "tls_cert_file", "tls_key_file")  # settings
TARGET = Path("/kit/given")  # below it the container has them by their paths on the host
# These, and what is above them, hold more than the container may read.
SHARED = (PROJECT, Path("/etc"), Path("/tmp"), Path("/var/tmp"))
BESIDE = {"README", "cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"}  # what certbot keeps of one certificate
VERSION = re.compile(r"-?\d+(?=\.\w+$)")  # cert2.pem, cert-1700000000.pem


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
    paths = given_paths(settings)
    names = {path.name for path in paths.values()}
    return {name: _place(path, owner, names) for name, path in paths.items()}


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


def _place(path: Path, owner: tuple[int, int], given_names: Collection[str]) -> Given:
    directory, name = path.parent, Path(path.name)
    if directory.is_symlink():
        directory, name = directory.parent, directory.name / name
    directory = directory.resolve()
    sources, names = _way(directory, name) if path.is_file() else (set(), set())
    known = {*given_names, *names, *BESIDE}
    if not sources or any(not _may_enter(source, owner) or _holds_more(source, known) for source in sources):
        return Given(f"{TARGET}{path}", (path,), alone=True)
    sources = {source for source in sources if sources.isdisjoint(source.parents)}
    return Given(f"{TARGET}{directory / name}", tuple(sorted(sources)))


def _way(directory: Path, name: Path) -> tuple[set[Path], set[str]]:
    """The directories of a file and of each link to it, and the names on the way; none where a link is absolute, which
    leads elsewhere in the container."""
    sources, names, todo = set(), set(), list(name.parts)
    while todo:
        part = todo.pop(0)
        names.add(part)
        step = directory / part
        if part != ".." and step.is_symlink():
            target = step.readlink()
            if target.is_absolute():
                return set(), set()
            sources.add(directory)
            todo[:0] = target.parts
        else:
            directory = directory.parent if part == ".." else step
    return sources | {directory.parent}, names


def _holds_more(directory: Path, known: Collection[str]) -> bool:
    """Whether a directory has more than the files of these names, and what takes or took their places."""
    if any(place == directory or directory in place.parents for place in (*SHARED, Path.home())):
        return True
    try:
        return any(not _belongs(entry, known) for entry in directory.iterdir())
    except OSError:
        return True


def _belongs(entry: Path, known: Collection[str]) -> bool:
    if entry.name in known or entry.name.startswith(".."):  # Kubernetes' `..data`, and what that leads to
        return True
    name, versions = entry.name.lstrip("."), {VERSION.sub("", one) for one in known}
    like = VERSION.sub("", name) in versions or name.startswith(tuple(f"{one}{mark}" for one in known for mark in ".~"))
    return like and not entry.is_dir()


def _may_enter(directory: Path, owner: tuple[int, int]) -> bool:
    """Whether the container's user, who has no capabilities, may use what is in a directory."""
    found = directory.stat()
    if found.st_uid == owner[0]:
        return bool(found.st_mode & 0o100)
    return bool(found.st_mode & (0o010 if found.st_gid == owner[1] else 0o001))
